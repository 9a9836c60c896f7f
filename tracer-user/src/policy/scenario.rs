//! Scenarios a person can tell: the stories the policy was written for.

use std::time::Duration;

use super::decision::{Blocked, Decision, ManualCause, Outcome, ResumedBy, Subject, Verdict};
use super::level::Level;
use super::observation::RedisState;
use super::rules::{Rules, Rung};
use super::world::{World, acts, blocked, boot, manual, rules, verdicts};

fn leaking() -> World {
    let mut world = World::new(rules(&[
        ("leaky.service", &[Rung::Restart]),
        ("steady.service", &[Rung::Restart]),
    ]));
    world.set(Some("steady.service"), 40, 0.0);
    world.set(Some("leaky.service"), 70, 30.0);
    world
}

#[test]
fn the_unit_that_grows_is_restarted_not_the_larger_one() {
    let mut world = leaking();
    world.set(Some("steady.service"), 95, 0.0);
    let said = world.run(15);
    let acts = acts(&said);
    assert_eq!(acts.len(), 1, "{said:?}");
    assert_eq!(acts[0].unit, "leaky.service");
    assert_eq!(acts[0].rung, Rung::Restart);
    assert_eq!(world.now_s, 15, "within 15 s of passing 100");
    assert!(
        acts[0].reason.contains("leaky.service holds 70"),
        "{}",
        acts[0].reason
    );
}

#[test]
fn a_restart_that_helps_is_verified_after_the_settle_window() {
    let mut world = leaking();
    let act = acts(&world.run(15)).remove(0);
    world.finish(&act, Outcome::Done);
    world.set(Some("leaky.service"), 10, 0.0);
    let said = world.run(400);
    assert!(
        matches!(verdicts(&said)[..], [Verdict::Helped { .. }]),
        "{said:?}"
    );
    assert_eq!(acts(&said), []);
}

#[test]
fn a_second_leak_waits_for_the_cooldown_and_a_third_failure_is_manual() {
    let mut world = leaking();
    let mut restarts_s = Vec::new();
    let mut cause = None;
    for _ in 0..1500 {
        let said = world.run(1);
        cause = cause.or(manual(&said));
        for act in acts(&said) {
            restarts_s.push(world.now_s);
            world.finish(&act, Outcome::Done);
            world.set(Some("leaky.service"), 5, 0.0);
            world.run(20);
            world.set(Some("leaky.service"), 80, 60.0);
        }
    }
    assert_eq!(restarts_s.len(), 3, "{restarts_s:?}");
    assert!(
        restarts_s.windows(2).all(|pair| pair[1] - pair[0] >= 300),
        "{restarts_s:?}"
    );
    assert!(
        matches!(
            cause,
            Some(ManualCause::GrowsDespiteRestarts { restarts: 3, .. })
        ),
        "{cause:?}"
    );
}

#[test]
fn manual_ends_with_an_ack() {
    let mut world = leaking();
    world.redis.latency = Some(Duration::from_millis(11));
    world.set(Some("leaky.service"), 0, 0.0);
    assert!(matches!(
        manual(&world.run(61)),
        Some(ManualCause::Latency { .. })
    ));
    world.redis.latency = Some(Duration::from_millis(1));
    world.set(Some("leaky.service"), 90, 30.0);
    assert_eq!(acts(&world.run(200)), []);
    let now = world.now();
    let said = world.machine.ack(now);
    assert_eq!(said, [Decision::LeaveManual { by: ResumedBy::Ack }]);
    assert_eq!(acts(&world.run(1)).len(), 1);
}

#[test]
fn manual_ends_after_a_long_healthy_time() {
    let mut world = leaking();
    world.redis.rejected_per_minute = 3.0;
    world.set(Some("steady.service"), 20, 0.0);
    world.set(Some("leaky.service"), 0, 0.0);
    assert!(matches!(
        manual(&world.run(61)),
        Some(ManualCause::Redis { .. })
    ));
    world.redis.rejected_per_minute = 0.0;
    let said = world.run(1799);
    assert!(!said.contains(&Decision::LeaveManual {
        by: ResumedBy::HealthyTime
    }));
    let said = world.run(2);
    assert!(said.contains(&Decision::LeaveManual {
        by: ResumedBy::HealthyTime
    }));
}

#[test]
fn an_attempt_that_was_not_begun_is_retried_with_growing_pauses_until_manual() {
    let mut world = leaking();
    let mut attempts_s = Vec::new();
    let mut cause = None;
    for _ in 0..900 {
        for act in acts(&world.run(1)) {
            attempts_s.push(world.now_s);
            let error = "no bus".to_owned();
            let said = world.finish(&act, Outcome::NotBegun { error });
            cause = cause.or(manual(&said));
        }
    }
    let pauses: Vec<u64> = attempts_s
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60, 60, 60]);
    assert!(
        matches!(cause, Some(ManualCause::ActionsFail { attempts: 10, .. })),
        "{cause:?}"
    );
}

#[test]
fn the_ladder_is_climbed_from_the_gentlest_rung() {
    let mut world = World::new(rules(&[(
        "leaky.service",
        &[Rung::ClientKill, Rung::Restart],
    )]));
    world.set(Some("leaky.service"), 120, 30.0);
    let act = acts(&world.run(15)).remove(0);
    assert_eq!(act.rung, Rung::ClientKill);
    world.finish(&act, Outcome::Done);
    let said = world.run(11);
    assert!(
        matches!(verdicts(&said)[..], [Verdict::NotFallen { .. }]),
        "{said:?}"
    );
    assert_eq!(
        acts(&said)[0].rung,
        Rung::Restart,
        "a client-kill starts no restart's cooldown"
    );
}

#[test]
fn nobody_is_restarted_for_growth_that_is_not_theirs() {
    let mut world = leaking();
    world.set(Some("leaky.service"), 70, 0.0);
    world.set(Some("other.service"), 70, 30.0);
    let said = world.run(60);
    assert_eq!(acts(&said), []);
    let unit = Some("other.service".to_owned());
    assert_eq!(blocked(&said), [Blocked::NotAllowed { unit }]);

    world.set(Some("other.service"), 70, 0.0);
    world.set(None, 70, 30.0);
    let said = world.run(60);
    assert_eq!(acts(&said), []);
    assert_eq!(blocked(&said), [Blocked::NotAllowed { unit: None }]);
}

#[test]
fn the_listeners_unit_is_never_restarted_even_when_allowed() {
    let mut world = World::new(rules(&[("redis.service", &[Rung::Restart])]));
    world.set(Some("redis.service"), 200, 50.0);
    let said = world.run(60);
    assert_eq!(acts(&said), []);
    let unit = "redis.service".to_owned();
    assert_eq!(blocked(&said), [Blocked::Listener { unit }]);
}

#[test]
fn without_a_configured_unit_it_observes() {
    let mut world = World::new(rules(&[]));
    world.set(Some("leaky.service"), 200, 50.0);
    let said = world.run(60);
    assert!(said.iter().any(|decision| matches!(
        decision,
        Decision::Level {
            subject: Subject::Port(6379),
            to: Level::Critical,
            ..
        }
    )));
    assert_eq!(blocked(&said), [Blocked::NoUnits]);
}

#[test]
fn a_redis_that_is_down_suspends_and_then_resumes_by_itself() {
    let mut world = leaking();
    world.redis.state = RedisState::Down;
    let said = world.run(120);
    assert_eq!(acts(&said), []);
    assert_eq!(
        blocked(&said),
        [Blocked::Redis {
            state: RedisState::Down
        }]
    );
    assert_eq!(manual(&said), None);
    world.redis.state = RedisState::Up;
    assert_eq!(acts(&world.run(1)).len(), 1);
}

#[test]
fn a_daemon_killed_while_acting_takes_the_action_as_done() {
    let mut world = leaking();
    assert_eq!(acts(&world.run(15)).len(), 1);
    world.reborn(&boot("one", 16));
    let said = world.run(280);
    assert_eq!(acts(&said), [], "still within the cooldown");
    assert!(
        matches!(verdicts(&said)[..], [Verdict::NotFallen { .. }]),
        "{said:?}"
    );
    assert_eq!(acts(&world.run(20)).len(), 1);
}

#[test]
fn a_reboot_does_not_shorten_the_cooldown() {
    let mut world = leaking();
    let act = acts(&world.run(15)).remove(0);
    world.finish(&act, Outcome::Done);
    let said = world.reborn(&boot("two", 5));
    assert_eq!(verdicts(&said), [Verdict::Rebooted]);
    // Restarted at 11 s, saved at 15 s: only those 4 s and the time since boot count as passed.
    assert_eq!(acts(&world.run(290)), []);
    assert_eq!(acts(&world.run(1)).len(), 1);
}

#[test]
fn a_daemon_that_starts_again_and_again_is_manual() {
    let mut world = leaking();
    let mut cause = None;
    for start in 1..=5 {
        cause = cause.or(manual(&world.reborn(&boot("one", start * 10))));
    }
    assert!(
        matches!(cause, Some(ManualCause::DaemonRestarts { starts: 6, .. })),
        "{cause:?}"
    );
}

#[test]
fn a_dry_run_decides_and_verifies_nothing() {
    let mut told = rules(&[("leaky.service", &[Rung::Restart])]);
    told.dry_run = true;
    let mut world = World::new(told);
    world.set(Some("leaky.service"), 120, 30.0);
    let said = world.run(300);
    let acts = acts(&said);
    assert_eq!(acts.len(), 1);
    assert!(acts[0].dry_run);
    assert_eq!(manual(&said), None);
}

#[test]
fn two_units_that_leak_in_turn_end_in_manual() {
    let mut world = leaking();
    let mut cause = None;
    let units = ["leaky.service", "steady.service"];
    let mut restarts = 0;
    for _ in 0..2000 {
        let said = world.run(1);
        cause = cause.or(manual(&said));
        for act in acts(&said) {
            restarts += 1;
            world.finish(&act, Outcome::Done);
            world.set(Some(&act.unit), 0, 0.0);
            world.run(20);
            let other = units
                .into_iter()
                .find(|unit| *unit != act.unit)
                .expect("two units");
            world.set(Some(other), 120, 60.0);
        }
    }
    assert_eq!(restarts, 3);
    assert!(
        matches!(cause, Some(ManualCause::GrowsDespiteRestarts { .. })),
        "{cause:?}"
    );
}

#[test]
fn a_client_kill_that_redis_forbids_gives_way_to_the_restart() {
    let mut world = World::new(rules(&[(
        "leaky.service",
        &[Rung::ClientKill, Rung::Restart],
    )]));
    world.set(Some("leaky.service"), 120, 30.0);
    let act = acts(&world.run(15)).remove(0);
    let error = "NOPERM".to_owned();
    world.finish(&act, Outcome::NotBegun { error });
    assert_eq!(acts(&world.run(1))[0].rung, Rung::Restart);
}

#[test]
fn two_causes_in_turn_are_said_once_each() {
    let mut world = leaking();
    world.set(Some("leaky.service"), 70, 0.0);
    let mut said = Vec::new();
    for second in 0..60 {
        let (one, other) = if second % 2 == 0 {
            (30.0, 0.0)
        } else {
            (0.0, 30.0)
        };
        world.set(Some("x.service"), 70, one);
        world.set(Some("y.service"), 70, other);
        said.extend(blocked(&world.run(1)));
    }
    assert_eq!(said.len(), 2, "{said:?}");
}

#[test]
fn the_stories_are_told_with_the_default_configuration() {
    let default = crate::config::Config::default();
    assert_eq!(Rules::from(&default), rules(&[]));
}
