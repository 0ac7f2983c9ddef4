//! The life of an engine: four statuses and the one table that leads from one to another.

use std::fmt;

/// The status of an engine: a closed set, with the numbers that it has on the wire.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum EngineStatus {
    /// Registered, not yet proved.
    New = 1,
    /// The dial-back was answered with a valid proof.
    Ready = 2,
    /// Was READY; the last check failed.
    Disconnected = 3,
    /// Left, was taken out, or was not seen for too long. Its owner is kept.
    Inactive = 4,
}

impl EngineStatus {
    /// Every status, in the order of a life.
    pub const ALL: [Self; 4] = [Self::New, Self::Ready, Self::Disconnected, Self::Inactive];

    /// Returns the word of logs and commands: `NEW`, `READY`, `DISCONNECTED` or `INACTIVE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Ready => "READY",
            Self::Disconnected => "DISCONNECTED",
            Self::Inactive => "INACTIVE",
        }
    }
}

impl fmt::Display for EngineStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What happens to an engine that is already known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// Its owner registered it again, at the same address.
    Registered,
    /// A dial-back was answered with a valid proof.
    Proved,
    /// A dial-back was answered without a proof, on a connection that was proved before.
    Alive,
    /// A dial-back failed.
    CheckFailed,
    /// It was not seen for the configured time.
    NotSeen,
    /// Its owner took it out of service.
    Deregistered,
}

/// Returns the status that `event` leads to, or `None` if it changes nothing.
///
/// Only [`Event::Proved`] leads to READY, and an INACTIVE engine comes back by registration only.
pub fn transition(status: EngineStatus, event: Event) -> Option<EngineStatus> {
    use EngineStatus::{Disconnected, Inactive, New, Ready};

    match (status, event) {
        (Disconnected | Inactive, Event::Registered) => Some(New),
        (New | Disconnected, Event::Proved) => Some(Ready),
        (Ready, Event::CheckFailed) => Some(Disconnected),
        (New | Ready | Disconnected, Event::NotSeen | Event::Deregistered) => Some(Inactive),
        (New | Ready, Event::Registered)
        | (Ready | Inactive, Event::Proved)
        | (_, Event::Alive)
        | (New | Disconnected | Inactive, Event::CheckFailed)
        | (Inactive, Event::NotSeen | Event::Deregistered) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::EngineStatus::{Disconnected, Inactive, New, Ready};
    use super::*;

    /// Rows: the event, then what it makes of NEW, READY, DISCONNECTED and INACTIVE.
    const TABLE: &[(Event, [EngineStatus; 4])] = &[
        (Event::Registered, [New, Ready, New, New]),
        (Event::Proved, [Ready, Ready, Ready, Inactive]),
        (Event::Alive, [New, Ready, Disconnected, Inactive]),
        (
            Event::CheckFailed,
            [New, Disconnected, Disconnected, Inactive],
        ),
        (Event::NotSeen, [Inactive; 4]),
        (Event::Deregistered, [Inactive; 4]),
    ];

    #[test]
    fn every_event_leads_where_the_table_says() {
        for (event, row) in TABLE {
            for (from, to) in EngineStatus::ALL.into_iter().zip(row) {
                let expected = (from != *to).then_some(*to);

                assert_eq!(transition(from, *event), expected, "{from} {event:?}");
            }
        }
    }

    #[test]
    fn statuses_print_as_in_the_seed() {
        let words = EngineStatus::ALL.map(EngineStatus::as_str);

        assert_eq!(words, ["NEW", "READY", "DISCONNECTED", "INACTIVE"]);
    }
}
