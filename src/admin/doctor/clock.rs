//! Layer 7: do the clocks agree?

use super::identity::Asked;
use super::peer::Peer;
use super::report::{Fault, Found, Side};
use crate::grpc::{is_proved, reason_of};
use crate::token::Reason;

/// Less is not worth a number: the way there and back takes time, too.
const IN_STEP_SECONDS: f64 = 0.5;

pub(super) fn judge(peer: &Peer, asked: &Asked) -> Result<Found<()>, Fault> {
    let leeway = peer.module.policy().leeway();
    let limit = leeway.as_secs_f64();
    let refused = asked.answer.as_ref().err();
    let reason = refused.and_then(reason_of);
    let Some(ahead) = asked.peer_ahead else {
        if let Some(Reason::TokenExpired | Reason::TokenNotYetValid) = reason {
            return Err(differs(peer, "the clocks differ".to_owned(), reason));
        }
        let detail = "not told: a module tells its time to callers that it verified";
        return Ok(Found::skipped((), detail));
    };
    let which = if ahead < 0.0 { "behind" } else { "ahead" };
    let seconds = ahead.abs();
    if seconds < IN_STEP_SECONDS {
        let detail = format!("in step within {IN_STEP_SECONDS} s (limit {limit} s)");
        return Ok(Found::new((), detail));
    }
    let detail = format!("peer is {seconds:.1} s {which} (limit {limit} s)");
    if refused.is_none() && seconds <= limit / 2.0 {
        return Ok(Found::new((), detail));
    }
    if refused.is_none() {
        let detail = format!("{detail}: over half of the limit, check NTP on both hosts");
        return Ok(Found::new((), detail));
    }
    let because_of_times = matches!(
        reason,
        Some(Reason::TokenExpired | Reason::TokenNotYetValid | Reason::ProofInvalid)
    );
    if !because_of_times || seconds < limit {
        return Ok(Found::new((), detail));
    }
    let unproved = match (reason, refused) {
        (Some(Reason::ProofInvalid), _) => "",
        (_, Some(status)) if is_proved(status) => "",
        _ => ", by its own unproved word",
    };
    Err(differs(peer, format!("{detail}{unproved}"), reason))
}

fn differs(peer: &Peer, detail: String, reason: Option<Reason>) -> Fault {
    let detail = match reason {
        Some(reason) => format!("{detail}: {reason}"),
        None => detail,
    };
    compare(Fault::new(Side::Between, detail), &peer.name)
}

/// Adds how the clock here is held against that of `name`.
pub(super) fn compare(fault: Fault, name: &str) -> Fault {
    let fault = fault.help(format!("compare `date -u` here and on the host of {name}"));
    fault.help("where it is wrong: timedatectl set-ntp true")
}
