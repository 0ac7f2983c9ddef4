//! What the doctor found, as values.

use std::cell::RefCell;
use std::fmt;

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::diagnostic::CommandLine;

/// One of the ten layers, in their order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The file can be used.
    Config,
    /// The module's own key.
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
    /// All layers in their order, with their names.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Config, "config"),
        (Self::OwnKey, "own key"),
        (Self::Name, "name"),
        (Self::Tcp, "tcp"),
        (Self::Tls, "tls"),
        (Self::Grpc, "grpc"),
        (Self::Clock, "clock"),
        (Self::Token, "token"),
        (Self::Role, "role"),
        (Self::WayBack, "way back"),
    ];

    /// Returns its name, in words.
    pub fn as_str(self) -> &'static str {
        let named = Self::ALL.iter().find(|(layer, _)| *layer == self);
        named.map_or("", |(_, name)| name)
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
    /// It does not either; the peer has other addresses.
    Warn,
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
    /// Either side, or the network between them: compare both.
    Between,
}

/// What to do: words, the line that is typed or written, or both. As text, one follows the other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Help {
    /// What the line is for, or what to do without one.
    pub words: String,
    /// A command, or the line of a file. It is never broken into several.
    pub line: String,
}

impl Help {
    /// Makes a help of `words` that a `line` follows.
    #[expect(clippy::needless_pass_by_value, reason = "a literal or a command")]
    pub(super) fn new(words: impl Into<String>, line: impl ToString) -> Self {
        Self {
            words: words.into(),
            line: line.to_string(),
        }
    }

    /// Puts `words` before it.
    pub(super) fn after(self, words: impl Into<String>) -> Self {
        let words = [words.into(), self.words].join(" ");
        Self::new(words.trim_end(), self.line)
    }
}

impl From<&str> for Help {
    fn from(words: &str) -> Self {
        Self::new(words, "")
    }
}

impl From<String> for Help {
    fn from(words: String) -> Self {
        Self::new(words, "")
    }
}

impl From<CommandLine> for Help {
    fn from(command: CommandLine) -> Self {
        Self::new("", command)
    }
}

impl fmt::Display for Help {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_both = !self.words.is_empty() && !self.line.is_empty();
        let between = if is_both { " " } else { "" };
        write!(f, "{}{between}{}", self.words, self.line)
    }
}

impl Serialize for Help {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A layer and its result. Text from a peer is escaped.
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
    /// How, one thing to do each.
    pub help: Vec<Help>,
    /// How long it took, if that is useful.
    pub milliseconds: Option<f64>,
    /// Whether it failed because one side refuses the other, whatever the layer.
    #[serde(skip)]
    pub refused: bool,
}

/// What the examination of a layer ends with: what the next layers need and the row to show, or the
/// row of the failure.
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

    /// Makes the row of a `layer` that works.
    pub(super) fn ok(layer: Layer, detail: impl Into<String>) -> Self {
        Self::new(layer, State::Ok, detail)
    }

    /// Makes the row of a `layer` at which there is nothing to examine.
    pub(super) fn skip(layer: Layer, detail: impl Into<String>) -> Self {
        Self::new(layer, State::Skip, detail)
    }

    /// Makes the row of a `layer` that fails and is to be fixed on `side`.
    pub(super) fn fail(layer: Layer, side: Side, detail: impl Into<String>) -> Self {
        let mut row = Self::new(layer, State::Fail, detail);
        row.side = Some(side);
        row
    }

    /// Makes a failure a warning.
    pub(super) fn warning(self) -> Self {
        let state = State::Warn;
        Self { state, ..self }
    }

    /// Marks that one side refuses the other.
    pub(super) fn refused(mut self) -> Self {
        self.refused = true;
        self
    }

    /// Adds what to do.
    pub(super) fn help(self, help: impl Into<Help>) -> Self {
        self.helps([help])
    }

    /// Adds several things to do.
    pub(super) fn helps(mut self, help: impl IntoIterator<Item = impl Into<Help>>) -> Self {
        self.help.extend(help.into_iter().map(Into::into));
        self
    }

    /// Returns `true` if its time is shown. The clock and the way back are judged from the answers
    /// of other layers.
    fn is_timed(&self) -> bool {
        self.state != State::Skip && !matches!(self.layer, Layer::Clock | Layer::WayBack)
    }

    /// Returns what is news when it changes: neither how long it took, nor by how much clocks
    /// differ.
    pub fn outcome(&self) -> (State, Option<Side>, Vec<Help>, Option<String>) {
        let has_failed = matches!(self.state, State::Fail | State::Warn);
        let is_fixed = has_failed && self.layer < Layer::Clock;
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
    /// Returns the layers that no later answer changes: TLS may still fail at the first bytes of
    /// HTTP/2.
    pub fn known(&self) -> &[Row] {
        match self.rows.as_slice() {
            [known @ .., last] if last.layer == Layer::Tls => known,
            all => all,
        }
    }

    /// Returns `true` if each layer was examined or cannot be reached.
    pub fn has_ended(&self) -> bool {
        self.rows
            .last()
            .is_some_and(|row| row.layer == Layer::WayBack)
    }
}

/// A diagnosis that grows, and is shown at each step.
pub(super) struct Live<'a> {
    diagnosis: RefCell<Diagnosis>,
    show: &'a dyn Fn(&Diagnosis),
}

impl<'a> Live<'a> {
    /// Begins with the `own` layers.
    pub(super) fn new(own: Vec<Row>, show: &'a dyn Fn(&Diagnosis)) -> Self {
        let visits = Vec::new();
        let diagnosis = RefCell::new(Diagnosis { own, visits });
        Self { diagnosis, show }
    }

    /// Visits `peer`: `examine` adds the rows of its layers, and returns the one that fails.
    pub(super) async fn visit(
        &self,
        peer: String,
        examine: impl AsyncFnOnce(&mut Visitor<'_>) -> Result<(), Row>,
    ) {
        let number = self.change(|diagnosis| {
            let rows = Vec::new();
            diagnosis.visits.push(Visit { peer, rows });
            diagnosis.visits.len() - 1
        });
        let (live, since) = (self, None);
        let mut visitor = Visitor {
            live,
            number,
            since,
        };
        if let Err(failed) = examine(&mut visitor).await {
            visitor.add(failed);
        }
        visitor.change(end);
    }

    fn change<T>(&self, change: impl FnOnce(&mut Diagnosis) -> T) -> T {
        let mut diagnosis = self.diagnosis.borrow_mut();
        let changed = change(&mut diagnosis);
        (self.show)(&diagnosis);
        changed
    }

    /// Returns the diagnosis as it is.
    pub(super) fn end(self) -> Diagnosis {
        self.diagnosis.into_inner()
    }
}

/// Adds what is found to a visit.
pub(super) struct Visitor<'a> {
    live: &'a Live<'a>,
    /// The place of its visit.
    number: usize,
    /// When the wait for the next answer began; `None` before the first question.
    since: Option<Instant>,
}

impl Visitor<'_> {
    fn change(&self, change: impl FnOnce(&mut Vec<Row>)) {
        self.live.change(|diagnosis| {
            if let Some(visit) = diagnosis.visits.get_mut(self.number) {
                change(&mut visit.rows);
            }
        });
    }

    /// Starts to measure how long answers take.
    pub(super) fn start(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Adds a row, in place of an earlier one of its layer, with the time that its answer took.
    pub(super) fn add(&mut self, mut row: Row) {
        if let Some(since) = self.since.filter(|_| row.is_timed()) {
            row.milliseconds = Some((since.elapsed().as_secs_f64() * 1e5).round() / 100.0);
            self.start();
        }
        self.change(|rows| {
            rows.retain(|earlier| earlier.layer != row.layer);
            rows.push(row);
        });
    }

    /// Adds the row of a layer that works, and passes on what the next layers need.
    pub(super) fn found<T>(&mut self, (value, row): (T, Row)) -> T {
        self.add(row);
        value
    }
}

/// Adds the layers that were not reached.
fn end(rows: &mut Vec<Row>) {
    let last = rows.last().map_or(Layer::OwnKey, |row| row.layer);
    let rest = Layer::ALL.iter().filter(|(layer, _)| *layer > last);
    rows.extend(rest.map(|(layer, _)| Row::new(*layer, State::NotReached, "not reached")));
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
    /// Makes the diagnosis of a module that gets no further than to itself.
    pub(super) fn of_own(mut own: Vec<Row>) -> Self {
        end(&mut own);
        let visits = Vec::new();
        Self { own, visits }
    }

    /// Goes through all rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        let visited = self.visits.iter().flat_map(|visit| &visit.rows);
        self.own.iter().chain(visited)
    }

    /// Returns the first row that failed: it decides the overall result.
    pub fn failed(&self) -> Option<&Row> {
        self.rows().find(|row| row.state == State::Fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_numbered_as_they_are_listed() {
        let numbers = Layer::ALL.map(|(layer, _)| layer.number());

        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn layers_and_states_have_the_same_names_in_text_and_json() {
        for (layer, name) in Layer::ALL {
            assert_eq!(serde_json::json!(layer), name);
            assert_eq!(layer.as_str(), name);
        }
        assert_eq!(serde_json::json!(State::NotReached), "not reached");
    }

    #[tokio::test]
    async fn layers_after_the_first_failure_are_not_reached_and_it_decides() {
        let live = Live::new(Vec::new(), &|_| {});
        let visit = live.visit("dpm-dev".to_owned(), async |visit| {
            visit.add(Row::ok(Layer::Name, "localhost"));
            Err(Row::fail(Layer::Tcp, Side::Peer, "refused"))
        });
        visit.await;
        let diagnosis = live.end();
        let mut states = vec![State::Ok, State::Fail];
        states.extend([State::NotReached; 6]);
        let found: Vec<_> = diagnosis.rows().map(|row| row.state).collect();

        assert_eq!(found, states);
        assert_eq!(diagnosis.failed().unwrap().layer, Layer::Tcp);
    }
}
