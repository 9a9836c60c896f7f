//! Replays of whole, cut and damaged recordings.
