//! What the clock does to all engines: those that were not seen for long, and leases that are over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::check::{Context, MOST_VOIDS};
use super::failures::log_failure;

/// Makes engines INACTIVE that were not seen for long.
pub(super) async fn inactivate(context: Arc<Context>) {
    let limit = context.options.inactivate_not_seen_for;
    let period = context.options.inactivate_period;
    let every = period.min(limit).max(SHORTEST);
    // After a start, engines that the registry has from before have time to call.
    let mut ticks = interval_at(Instant::now() + every.max(LEASE), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let done = context.registry.inactivate_not_seen(limit).await;
        log_failure(&context.registry, done);
    }
}

/// Takes engines out of READY as their leases end.
pub(super) async fn end_leases(context: Arc<Context>) {
    let Context {
        registry, pulse, ..
    } = &*context;
    let (mut since, mut voids) = (Instant::now(), 0);
    loop {
        sleep_until(registry.next_look()).await;
        let patience = registry.patience();
        let was_late = pulse.was_late_since(std::mem::replace(&mut since, Instant::now()));
        if was_late && !patience.is_zero() && voids < MOST_VOIDS {
            // Calls may wait to be read: all engines have time for one more.
            voids += 1;
            sleep(patience).await;
            continue;
        }
        voids = 0;
        let done = registry.end_leases().await;
        let has_failed = done.is_err();
        log_failure(registry, done);
        if has_failed {
            // They are over still, and the store is not back at once.
            sleep(context.options.soon()).await;
        }
    }
}

/// Three heartbeats, as engines call by default.
pub(super) const LEASE: Duration = Duration::from_secs(15);
const SHORTEST: Duration = Duration::from_millis(100);
