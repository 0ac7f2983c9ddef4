//! What the doctor found, as values.

use std::time::Duration;

/// One of the ten layers, in their order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Layer {
    /// The file can be used.
    Config,
    /// The module has a key of its own.
    OwnKey,
    /// The peer's name resolves.
    Name,
    /// Somebody accepts there.
    Tcp,
    /// Both sides have the same idea of TLS.
    Tls,
    /// It speaks HTTP/2, and gRPC.
    Grpc,
    /// The clocks agree.
    Clock,
    /// The peer knows this module, and is who it should be.
    Token,
    /// The peer gives this module the role that it needs.
    Role,
    /// The DPM reaches the engine.
    WayBack,
}

impl Layer {
    /// All layers, in their order.
    pub const ALL: [Self; 10] = [
        Self::Config,
        Self::OwnKey,
        Self::Name,
        Self::Tcp,
        Self::Tls,
        Self::Grpc,
        Self::Clock,
        Self::Token,
        Self::Role,
        Self::WayBack,
    ];

    /// Returns its name, in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::OwnKey => "own key",
            Self::Name => "name",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Grpc => "grpc",
            Self::Clock => "clock",
            Self::Token => "token",
            Self::Role => "role",
            Self::WayBack => "way back",
        }
    }

    /// Returns its number, from 1.
    pub fn number(self) -> usize {
        Self::ALL.iter().take_while(|other| **other < self).count() + 1
    }
}

/// What a layer's examination ended with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It is in order.
    Ok,
    /// It is not, and what follows could not be looked at.
    Fail,
    /// There is nothing to look at.
    Skip,
    /// A layer before it failed.
    NotReached,
}

impl State {
    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
            Self::NotReached => "-",
        }
    }
}

/// Which side has to act.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The module whose home was given.
    Here,
    /// The peer.
    Peer,
    /// Either, or what is between them: both have to be compared.
    Between,
}

impl Side {
    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Peer => "peer",
            Self::Between => "between",
        }
    }
}

/// A layer and what was found there. Text of a peer in it is escaped.
#[derive(Clone, Debug)]
pub struct Row {
    /// The layer.
    pub layer: Layer,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// Where it is to be mended, for a failure.
    pub side: Option<Side>,
    /// How, one sentence or command each.
    pub help: Vec<String>,
    /// Whether it failed because one side refuses the other, whatever the layer.
    pub refused: bool,
    /// How long it took, where that tells something.
    pub took: Option<Duration>,
}

impl Row {
    /// Returns what is news when it changes: not how long it took, nor by how much clocks differ.
    pub fn outcome(&self) -> (State, Option<Side>, Vec<String>) {
        (self.state, self.side, self.help.clone())
    }

    pub(super) fn new(layer: Layer, state: State, detail: impl Into<String>) -> Self {
        Self {
            layer,
            state,
            detail: detail.into(),
            side: None,
            help: Vec::new(),
            refused: false,
            took: None,
        }
    }

    pub(super) fn fail(layer: Layer, fault: Fault) -> Self {
        Self {
            side: Some(fault.side),
            help: fault.help,
            refused: fault.refused,
            ..Self::new(layer, State::Fail, fault.detail)
        }
    }
}

/// Why a layer is not in order.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    side: Side,
    detail: String,
    help: Vec<String>,
    refused: bool,
}

impl Fault {
    pub(super) fn new(side: Side, detail: impl Into<String>) -> Self {
        Self {
            side,
            detail: detail.into(),
            help: Vec::new(),
            refused: false,
        }
    }

    /// Says that one side refuses the other.
    pub(super) fn refused(mut self) -> Self {
        self.refused = true;
        self
    }

    /// Adds what to do.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

/// What is in order.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    detail: String,
    state: State,
}

impl<T> Found<T> {
    pub(super) fn new(value: T, detail: impl Into<String>) -> Self {
        Self {
            value,
            detail: detail.into(),
            state: State::Ok,
        }
    }

    /// Says that there was nothing to look at.
    pub(super) fn skipped(value: T, detail: impl Into<String>) -> Self {
        Self {
            state: State::Skip,
            ..Self::new(value, detail)
        }
    }
}

/// A peer and its layers, from the name on.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Who, and where.
    pub peer: String,
    /// The layers.
    pub rows: Vec<Row>,
}

impl Visit {
    pub(super) fn to(peer: impl Into<String>) -> Self {
        Self {
            peer: peer.into(),
            rows: Vec::new(),
        }
    }

    /// Notes how `layer` is; returns what the next ones need.
    pub(super) fn note<T>(&mut self, layer: Layer, seen: Result<Found<T>, Fault>) -> Option<T> {
        match seen {
            Ok(found) => {
                self.rows.push(Row::new(layer, found.state, found.detail));
                Some(found.value)
            }
            Err(fault) => {
                self.rows.push(Row::fail(layer, fault));
                None
            }
        }
    }

    /// Looks at `layer` and notes how long that took.
    pub(super) async fn look<T>(
        &mut self,
        layer: Layer,
        looking: impl Future<Output = Result<Found<T>, Fault>>,
    ) -> Option<T> {
        let start = tokio::time::Instant::now();
        let seen = looking.await;
        let took = start.elapsed();
        let skipped = seen.as_ref().is_ok_and(|found| found.state == State::Skip);
        let value = self.note(layer, seen);
        if let Some(row) = self.rows.last_mut().filter(|_| !skipped) {
            row.took = Some(took);
        }
        value
    }

    /// Adds the layers that were not reached.
    pub(super) fn end(mut self) -> Self {
        let last = self.rows.last().map_or(Layer::OwnKey, |row| row.layer);
        let rest = Layer::ALL.into_iter().filter(|layer| *layer > last);
        let rest = rest.map(|layer| Row::new(layer, State::NotReached, "not reached"));
        self.rows.extend(rest);
        self
    }
}

/// What all of it comes to; the exit code of `doctor`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// No layer failed.
    Healthy,
    /// The file or the own key cannot be used.
    Unusable,
    /// The peer cannot be reached.
    Unreachable,
    /// One of the two does not accept the other.
    Refused,
    /// Something else is wrong: the clocks, or the way back.
    Unwell,
}

/// The own layers, and those of each peer.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// Config and own key.
    pub own: Vec<Row>,
    /// The peers.
    pub visits: Vec<Visit>,
}

impl Diagnosis {
    /// The diagnosis of a module that gets no further than to itself.
    pub(super) fn of_own(own: Vec<Row>) -> Self {
        let mut all = Visit {
            peer: String::new(),
            rows: own,
        };
        all = all.end();
        Self {
            own: all.rows,
            visits: Vec::new(),
        }
    }

    /// Goes through all rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        let visited = self.visits.iter().flat_map(|visit| &visit.rows);
        self.own.iter().chain(visited)
    }

    /// Returns what it comes to: the first failure decides.
    pub fn verdict(&self) -> Verdict {
        let failed = self.rows().find(|row| row.state == State::Fail);
        if failed.is_some_and(|row| row.refused) {
            return Verdict::Refused;
        }
        match failed.map(|row| row.layer) {
            None => Verdict::Healthy,
            Some(Layer::Config | Layer::OwnKey) => Verdict::Unusable,
            Some(Layer::Name | Layer::Tcp | Layer::Tls | Layer::Grpc) => Verdict::Unreachable,
            Some(Layer::Token | Layer::Role) => Verdict::Refused,
            Some(Layer::Clock | Layer::WayBack) => Verdict::Unwell,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_numbered_as_they_are_listed() {
        let numbers = Layer::ALL.map(Layer::number);

        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn layers_after_the_first_failure_are_not_reached_and_it_decides() {
        let mut visit = Visit::to("dpm-dev");
        visit.note(Layer::Name, Ok(Found::new((), "localhost")));
        let failed: Result<Found<()>, Fault> = Err(Fault::new(Side::Peer, "refused"));
        visit.note(Layer::Tcp, failed);
        let visit = visit.end();
        let states: Vec<_> = visit.rows.iter().map(|row| row.state.as_str()).collect();
        let diagnosis = Diagnosis {
            own: Vec::new(),
            visits: vec![visit],
        };

        assert_eq!(states, ["ok", "FAIL", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(diagnosis.verdict(), Verdict::Unreachable);
    }
}
