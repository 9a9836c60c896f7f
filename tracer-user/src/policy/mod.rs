//! The policy turns counts into levels and levels into actions; pure, so that it can be proved.

mod act;
mod choose;
mod conclude;
pub mod decision;
pub mod hold;
mod judge;
pub mod level;
pub mod machine;
pub mod observation;
#[cfg(test)]
mod property;
pub mod rules;
#[cfg(test)]
mod scenario;
pub mod state;
pub mod timestamp;
pub mod verify;
#[cfg(test)]
mod world;
