//! What the doctor found, as values.

use serde::Serialize;
use tokio::time::Instant;

/// One of the ten layers, in their order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The file can be used.
    Config,
    /// The module has a key of its own.
    #[serde(rename = "own key")]
    OwnKey,
    /// The peer's name resolves.
    Name,
    /// The peer accepts connections.
    Tcp,
    /// Both sides agree on TLS.
    Tls,
    /// It speaks HTTP/2, and gRPC.
    Grpc,
    /// The clocks agree.
    Clock,
    /// The peer knows this module, and is the expected one.
    Token,
    /// The peer gives this module the role that it needs.
    Role,
    /// The DPM reaches the engine.
    #[serde(rename = "way back")]
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
        self as usize + 1
    }
}

/// What a layer's examination ended with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Ok,
    /// It does not, and what follows could not be examined.
    Fail,
    /// There is nothing to examine.
    Skip,
    /// A layer before it failed.
    #[serde(rename = "not reached")]
    NotReached,
}

/// Which side has to act.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The module whose home was given.
    Here,
    /// The peer.
    Peer,
    /// Either, or what is between them: both have to be compared.
    Between,
}

/// A layer and what was found there. Text of a peer in it is escaped.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// The layer.
    pub layer: Layer,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// Where it is to be fixed, for a failure.
    pub side: Option<Side>,
    /// How, one sentence or command each.
    pub help: Vec<String>,
    /// How long it took, where that is of interest.
    pub milliseconds: Option<f64>,
    /// Whether it failed because one side refuses the other, whatever the layer.
    #[serde(skip)]
    pub refused: bool,
}

/// What the examination of a layer ends with: what the next layers need, and the row to show.
pub(super) type Outcome<T> = Result<(T, Row), Row>;

impl Row {
    fn new(layer: Layer, state: State, detail: impl Into<String>) -> Self {
        Self {
            layer,
            state,
            detail: detail.into(),
            side: None,
            help: Vec::new(),
            milliseconds: None,
            refused: false,
        }
    }

    /// Says that `layer` works.
    pub(super) fn ok(layer: Layer, detail: impl Into<String>) -> Self {
        Self::new(layer, State::Ok, detail)
    }

    /// Says that there is nothing to examine at `layer`.
    pub(super) fn skip(layer: Layer, detail: impl Into<String>) -> Self {
        Self::new(layer, State::Skip, detail)
    }

    /// Says that `layer` does not work, and on which side that is to be fixed.
    pub(super) fn fail(layer: Layer, side: Side, detail: impl Into<String>) -> Self {
        Self {
            side: Some(side),
            ..Self::new(layer, State::Fail, detail)
        }
    }

    /// Says that one side refuses the other.
    pub(super) fn refused(self) -> Self {
        Self {
            refused: true,
            ..self
        }
    }

    /// Adds what to do.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        self.helps([help.into()])
    }

    /// Adds several things to do.
    pub(super) fn helps(mut self, help: impl IntoIterator<Item = String>) -> Self {
        self.help.extend(help);
        self
    }

    /// Returns what is news when it changes: neither how long it took, nor by how much clocks differ.
    pub fn outcome(&self) -> (State, Option<Side>, Vec<String>, Option<String>) {
        let is_fixed = self.state == State::Fail && self.layer < Layer::Clock;
        let detail = is_fixed.then(|| self.detail.clone());
        (self.state, self.side, self.help.clone(), detail)
    }
}

/// A peer and its layers, from the name on.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Visit {
    /// Which peer, and where.
    pub peer: String,
    /// The layers.
    #[serde(rename = "layers")]
    pub rows: Vec<Row>,
}

impl Visit {
    pub(super) fn to(peer: impl Into<String>) -> Self {
        Self {
            peer: peer.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, in place of an earlier one of its layer; returns what the next layers need, if it
    /// did not fail.
    pub(super) fn note<T>(&mut self, outcome: Outcome<T>) -> Option<T> {
        let (value, row) = match outcome {
            Ok((value, row)) => (Some(value), row),
            Err(row) => (None, row),
        };
        self.rows.retain(|earlier| earlier.layer != row.layer);
        self.rows.push(row);
        value
    }

    /// As [`note`](Self::note), with the time since `start`.
    pub(super) fn note_since<T>(&mut self, start: Instant, outcome: Outcome<T>) -> Option<T> {
        let milliseconds = (start.elapsed().as_secs_f64() * 1e5).round() / 100.0;
        let value = self.note(outcome);
        if let Some(row) = self.rows.last_mut().filter(|row| row.state != State::Skip) {
            row.milliseconds = Some(milliseconds);
        }
        value
    }

    /// Examines a layer, and notes how long that took.
    pub(super) async fn look<T>(&mut self, looking: impl Future<Output = Outcome<T>>) -> Option<T> {
        let start = Instant::now();
        let outcome = looking.await;
        self.note_since(start, outcome)
    }

    /// Adds the layers that were not reached.
    pub(super) fn end(mut self) -> Self {
        let last = self.rows.last().map_or(Layer::OwnKey, |row| row.layer);
        let rest = Layer::ALL.into_iter().filter(|layer| *layer > last);
        self.rows
            .extend(rest.map(|layer| Row::new(layer, State::NotReached, "not reached")));
        self
    }
}

/// The own layers, and those of each peer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Diagnosis {
    /// Config and own key.
    pub own: Vec<Row>,
    /// The peers.
    pub visits: Vec<Visit>,
}

impl Diagnosis {
    /// The diagnosis of a module that gets no further than to itself.
    pub(super) fn of_own(rows: Vec<Row>) -> Self {
        let own = Visit {
            rows,
            ..Visit::to("")
        };
        Self {
            own: own.end().rows,
            visits: Vec::new(),
        }
    }

    /// Goes through all rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        let visited = self.visits.iter().flat_map(|visit| &visit.rows);
        self.own.iter().chain(visited)
    }

    /// Returns the first row that failed: it decides what all of it comes to.
    pub fn failed(&self) -> Option<&Row> {
        self.rows().find(|row| row.state == State::Fail)
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
    fn layers_and_states_are_named_alike_in_text_and_json() {
        for layer in Layer::ALL {
            assert_eq!(serde_json::json!(layer), layer.as_str());
        }
        assert_eq!(serde_json::json!(State::NotReached), "not reached");
    }

    #[test]
    fn layers_after_the_first_failure_are_not_reached_and_it_decides() {
        let mut visit = Visit::to("dpm-dev");
        visit.note(Ok(((), Row::ok(Layer::Name, "localhost"))));
        visit.note::<()>(Err(Row::fail(Layer::Tcp, Side::Peer, "refused")));
        let visit = visit.end();
        let mut states = vec![State::Ok, State::Fail];
        states.extend([State::NotReached; 6]);
        let found: Vec<_> = visit.rows.iter().map(|row| row.state).collect();
        let diagnosis = Diagnosis {
            own: Vec::new(),
            visits: vec![visit],
        };

        assert_eq!(found, states);
        assert_eq!(diagnosis.failed().unwrap().layer, Layer::Tcp);
    }
}
