//! Verdicts under a virtual clock: leaks are called leaks, and what only looks like one is not.

use proptest::prelude::*;

use super::verdict_world::{SECOND_NS, World, grow, no_leak, opener, site, unit};
use super::{Fact, Group, Judgement, Verdict};
use crate::decode::socket::TcpState;
use crate::sockets::Traffic;

#[test]
fn what_grows_and_is_never_closed_nor_used_leaks_and_says_why() {
    let mut world = World::new();
    let mut first = None;
    let leaking = |minute: f64, _: &Group, judgement: &Judgement, first: &mut Option<f64>| {
        if judgement.verdict == Some(Verdict::Leaking) && first.is_none() {
            *first = Some(minute);
        }
    };
    world.run(
        10.0,
        |world| grow(world, 7, 12.0),
        |minute, group, judgement| leaking(minute, group, judgement, &mut first),
    );
    let first = first.expect("it is found");
    assert!((5.0..9.0).contains(&first), "after {first} min");
    for group in [
        Group::Opener(opener(7)),
        unit("worker.service"),
        Group::Site(site(7).into()),
    ] {
        let judgement = world.groups.judgement(&group, world.now_ns());
        assert_eq!(judgement.verdict, Some(Verdict::Leaking), "{group:?}");
        let facts: Vec<String> = judgement.facts.iter().map(ToString::to_string).collect();
        assert_eq!(
            facts,
            [
                "+12.0/min over 5 min",
                "none of 60 older than 5 min was closed or used"
            ]
        );
    }
}

#[test]
fn a_slow_leak_is_found_over_a_longer_time() {
    let mut world = World::new();
    world.run(25.0, |world| grow(world, 7, 0.5), |_, _, _| {});
    let judgement = world
        .groups
        .judgement(&Group::Opener(opener(7)), world.now_ns());
    assert_eq!(judgement.verdict, Some(Verdict::Leaking), "{judgement:?}");
}

#[test]
fn a_leak_beside_a_pool_in_use_is_found_at_its_site() {
    let mut world = World::new();
    let pool: Vec<u64> = (0..30).map(|_| world.open(1, "worker.service")).collect();
    world.groups.begin(world.now_ns());
    let each = |world: &mut World| {
        let due = 30.0 + world.minute() * 6.0;
        while (world.next as f64) <= due {
            world.open(7, "worker.service");
        }
        for id in &pool {
            if let Some((_, used_s)) = world.sockets.get_mut(id) {
                *used_s = world.now_s;
            }
        }
    };
    world.run(12.0, each, |_, _, _| {});
    assert_eq!(
        world.verdict(&Group::Site(site(7).into())),
        Some(Verdict::Leaking)
    );
    assert_eq!(
        world.verdict(&Group::Site(site(1).into())),
        Some(Verdict::SteadyPool)
    );
    // The unit has both: it is told that it leaks.
    assert_eq!(
        world.verdict(&unit("worker.service")),
        Some(Verdict::Leaking)
    );
}

#[test]
fn a_pool_that_warms_up_to_50_and_stays_is_no_leak() {
    for warm_minutes in [0.1, 1.0, 4.0] {
        let mut world = World::new();
        let each = |world: &mut World| {
            let due = (world.minute() / warm_minutes * 50.0).min(50.0);
            while (world.next as f64) <= due {
                world.open(7, "worker.service");
            }
            world.use_all();
        };
        world.run(30.0, each, no_leak);
        assert_eq!(
            world.verdict(&Group::Opener(opener(7))),
            Some(Verdict::SteadyPool)
        );
    }
}

#[test]
fn a_pool_that_warms_up_and_then_only_waits_is_idle() {
    let mut world = World::new();
    let each = |world: &mut World| {
        let due = (world.minute() * 25.0).min(50.0);
        while (world.next as f64) <= due {
            world.open(7, "worker.service");
        }
    };
    world.run(30.0, each, no_leak);
    assert_eq!(
        world.verdict(&Group::Opener(opener(7))),
        Some(Verdict::Idle)
    );
}

#[test]
fn a_pool_that_grows_with_its_load_all_morning_is_no_leak() {
    let mut world = World::new();
    let each = |world: &mut World| {
        grow(world, 7, 1.0);
        world.use_all();
    };
    world.run(90.0, each, no_leak);
}

#[test]
fn a_cron_job_of_200_short_connections_is_no_leak() {
    let mut world = World::new();
    let mut open = Vec::new();
    let mut pid = 100;
    let each = |world: &mut World| {
        for id in open.drain(..) {
            world.close(id);
        }
        // Ten steps of twenty, at the start of every fifth minute, each time another process.
        let step = (world.minute() * 20.0).round() as u32 % 100;
        if step == 0 {
            pid += 1;
        }
        if step < 10 {
            open = (0..20).map(|_| world.open(pid, "cron.service")).collect();
        }
    };
    let seen = |minute: f64, group: &Group, judgement: &Judgement| {
        no_leak(minute, group, judgement);
        if minute > 6.0 && *group == unit("cron.service") {
            assert_eq!(judgement.verdict, Some(Verdict::Churning), "{judgement:?}");
        }
    };
    world.run(30.0, each, seen);
}

#[test]
fn a_blue_green_deploy_that_doubles_for_a_minute_is_no_leak() {
    let mut world = World::new();
    let blue: Vec<u64> = (0..50).map(|_| world.open(1, "web.service")).collect();
    world.groups.begin(world.now_ns());
    let in_use = |world: &mut World| world.use_all();
    world.run(20.0, in_use, no_leak);
    for _ in 0..50 {
        world.open(2, "web.service");
    }
    world.run(1.0, in_use, no_leak);
    for id in blue {
        world.close(id);
    }
    world.run(20.0, in_use, no_leak);
    assert_eq!(
        world.verdict(&unit("web.service")),
        Some(Verdict::SteadyPool)
    );
}

#[test]
fn what_the_server_closed_and_the_process_did_not_is_close_wait() {
    let mut world = World::new();
    for _ in 0..5 {
        world.open(7, "worker.service");
    }
    world.run(0.5, |_| {}, no_leak);
    world.enter(TcpState::CloseWait);
    world.run(0.9, |_| {}, no_leak);
    world.run(0.2, |_| {}, |_, _, _| {});
    let group = Group::Opener(opener(7));
    assert_eq!(world.verdict(&group), Some(Verdict::CloseWait));
    world.enter(TcpState::Close);
    world.run(1.1, |_| {}, |_, _, _| {});
    assert_eq!(world.verdict(&group), Some(Verdict::HeldAfterReset));
}

#[test]
fn what_never_carried_a_byte_is_never_used() {
    let mut world = World::new();
    for _ in 0..5 {
        let id = world.open(7, "worker.service");
        let (entry, _) = world.sockets.get_mut(&id).expect("it is open");
        entry.set_traffic(Traffic::default());
    }
    world.run(1.1, |_| {}, no_leak);
    let group = Group::Opener(opener(7));
    assert_eq!(world.verdict(&group), Some(Verdict::NeverUsed));
}

#[test]
fn what_leaked_and_was_closed_has_recovered() {
    let mut world = World::new();
    world.run(12.0, |world| grow(world, 7, 12.0), |_, _, _| {});
    let group = Group::Opener(opener(7));
    assert_eq!(world.verdict(&group), Some(Verdict::Leaking));
    world.close_all();
    world.run(4.0, |_| {}, |_, _, _| {});
    assert_eq!(world.verdict(&group), Some(Verdict::Recovered));
    world.run(16.0, |_| {}, |_, _, _| {});
    assert_eq!(world.verdict(&group), None);
}

#[test]
fn what_was_watched_too_briefly_is_not_judged_and_says_so() {
    let mut world = World::new();
    world.run(
        4.0,
        |world| grow(world, 7, 12.0),
        |_, _, judgement| {
            assert_eq!(judgement.verdict, None);
            assert!(
                matches!(judgement.facts[..], [Fact::WatchedBriefly { .. }]),
                "{judgement:?}"
            );
        },
    );
}

#[test]
fn rates_are_null_where_it_was_watched_for_less() {
    let mut world = World::new();
    world.run(6.0, |world| grow(world, 7, 12.0), |_, _, _| {});
    let rates = world
        .groups
        .rates(&Group::Opener(opener(7)), world.now_ns())
        .expect("it is followed");
    let net = |rate: Option<super::Rate>| rate.map(|rate| rate.net_per_minute.round());
    assert_eq!(net(rates.over_1_min), Some(12.0));
    assert_eq!(net(rates.over_5_min), Some(12.0));
    assert_eq!(net(rates.over_15_min), None);
}

#[test]
fn an_heir_has_not_grown_by_what_it_inherits() {
    let mut world = World::new();
    let ids: Vec<u64> = (0..50).map(|_| world.open(1, "web.service")).collect();
    world.groups.begin(world.now_ns());
    world.run(10.0, World::use_all, no_leak);
    for id in ids {
        let socket = world.sockets[&id].0.socket();
        let now_ns = world.now_ns();
        world
            .groups
            .set(&socket, opener(2), Some("web.service"), now_ns);
    }
    world.run(10.0, World::use_all, no_leak);
    let rates = world
        .groups
        .rates(&Group::Opener(opener(2)), world.now_ns());
    let over_5 = rates.and_then(|rates| rates.over_5_min).expect("a rate");
    assert_eq!(
        (over_5.opened_per_minute, over_5.closed_per_minute),
        (0.0, 0.0)
    );
}

#[test]
fn groups_are_bounded_and_the_quiet_ones_go_first() {
    let mut world = World::new();
    let kept = world.open(1, "web.service");
    for pid in 2..10_000 {
        let id = world.open(pid, "cron.service");
        world.close(id);
    }
    assert!(world.groups.iter().count() <= 4096);
    let owner = Group::Opener(opener(1));
    assert!(
        world
            .groups
            .iter()
            .any(|(group, count)| *group == owner && count == 1)
    );
    world.close(kept);
    world.now_s += 1000.0;
    world.look();
    assert_eq!(world.groups.iter().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is closed is replaced at once: the count stands, and nothing of it is a leak.
    #[test]
    fn a_constant_count_never_leaks(
        count in 1_usize..40,
        turns in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..200)
    ) {
        let mut world = World::with_minutes_of(6.0);
        let mut open: Vec<u64> = (0..count).map(|_| world.open(7, "worker.service")).collect();
        world.groups.begin(world.now_ns());
        let mut turns = turns.into_iter().cycle();
        let each = |world: &mut World| {
            let Some((index, replaced)) = turns.next() else { return };
            let place = index.index(open.len());
            if replaced {
                world.close(open[place]);
                open[place] = world.open(7, "worker.service");
            }
        };
        world.run(20.0, each, no_leak);
    }

    /// A minute may be any length: a leak stays a leak, and a pool a pool.
    #[test]
    fn verdicts_do_not_depend_on_the_scale_of_time(minute_s in 3.0_f64..60.0, per_minute in 6.0_f64..60.0) {
        let mut leak = World::with_minutes_of(minute_s);
        leak.run(13.0, |world| grow(world, 7, per_minute), |_, _, _| {});
        prop_assert_eq!(leak.verdict(&Group::Opener(opener(7))), Some(Verdict::Leaking));
        let mut pool = World::with_minutes_of(minute_s);
        let each = |world: &mut World| {
            let due = (world.minute() * per_minute).min(50.0);
            while (world.next as f64) <= due {
                world.open(7, "worker.service");
            }
            world.use_all();
        };
        pool.run(26.0, each, no_leak);
        prop_assert_eq!(pool.verdict(&Group::Opener(opener(7))), Some(Verdict::SteadyPool));
    }

    /// What came and went within the time does not move the trend, whenever it was.
    #[test]
    fn a_burst_of_a_fifth_of_the_time_does_not_move_the_trend(
        at in 0_u64..240, height in 1_u32..1000
    ) {
        let mut growth = super::Growth::new(0, 10);
        growth.set(at * SECOND_NS, 10 + height);
        growth.set((at + 60) * SECOND_NS, 10);
        let net = super::net_per_minute(&growth, 300 * SECOND_NS, 300 * SECOND_NS);
        prop_assert!(net.abs() < f64::EPSILON, "{}", net);
    }
}
