//! Layers of values, each with its origin, on top of each other in a tree of the `config` crate.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::slice;
use std::sync::Arc;
use std::thread;

use config::Map;
use zeroize::Zeroizing;

use crate::diagnostic::Origin;

/// A text and where it comes from. `Debug` shows the origin only: the text may be a private key.
/// Cloning is cheap.
#[derive(Clone)]
#[must_use]
pub struct Sourced {
    text: Arc<Zeroizing<String>>,
    origin: Origin,
    /// The number of the file's entry that it is from.
    pub entry: Option<usize>,
    setting: Option<Path>,
}

impl Sourced {
    /// Takes `text`, which comes from `origin`.
    pub fn new(text: &str, origin: Origin) -> Self {
        Self {
            text: Arc::new(Zeroizing::new(text.to_owned())),
            origin,
            entry: None,
            setting: None,
        }
    }

    /// Takes `text`, the value of the file's entry with the number `entry`.
    pub fn of_entry(entry: usize, text: Arc<Zeroizing<String>>, origin: Origin) -> Self {
        Self {
            text,
            origin,
            entry: Some(entry),
            setting: None,
        }
    }

    /// Remembers the setting it is of.
    pub fn of(mut self, setting: &Path) -> Self {
        self.setting = Some(Arc::clone(setting));
        self
    }

    /// Gives it another text of the same origin, such as one with its placeholders resolved.
    pub fn with_text(mut self, text: Zeroizing<String>) -> Self {
        self.text = Arc::new(text);
        self
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the full name of its setting; `None` if it is not one of ours.
    pub fn setting(&self) -> Option<String> {
        self.setting.as_ref().map(|path| path.join("."))
    }
}

impl fmt::Debug for Sourced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sourced").field(&self.origin).finish()
    }
}

/// The path of a value: canonical segments and map keys, as `["server", "port"]`. Cloning is cheap.
pub type Path = Arc<[Cow<'static, str>]>;

/// What a layer holds at a path.
#[derive(Clone, Debug)]
pub enum Content {
    /// One value.
    One(Sourced),
    /// A whole list: it replaces the list that an earlier layer has there.
    List(Vec<Sourced>),
}

impl Content {
    /// Returns the value, or the elements of the list in order.
    pub fn values(&self) -> &[Sourced] {
        match self {
            Self::One(value) => slice::from_ref(value),
            Self::List(list) => list,
        }
    }
}

/// Layers on top of each other: the current value of each path, with its origin.
#[derive(Clone, Debug, Default)]
pub struct Layered {
    contents: Vec<(Path, Content)>,
    tree: Node,
}

/// A place in the tree of paths.
#[derive(Clone, Debug, Default)]
struct Node {
    /// The number of its content.
    content: Option<usize>,
    /// What is below it, in the order of the layers.
    below: Map<String, Self>,
}

impl Layered {
    /// Puts `content` at `path`, on top of what an earlier layer has there.
    ///
    /// A list replaces a list. If it were merged with a longer one, a role that was removed would
    /// stay.
    pub fn push(&mut self, path: Path, content: Content) {
        let at = self.contents.len();
        give_way(at);
        let place = path.iter().fold(&mut self.tree, |place, segment| {
            place.below.entry(segment.to_string()).or_default()
        });
        place.content = Some(at);
        self.contents.push((path, content));
    }

    fn content<S: AsRef<str>>(&self, path: &[S]) -> Option<&Content> {
        let (_, content) = self.contents.get(self.node(path)?.content?)?;
        Some(content)
    }

    /// Returns the value at `path`.
    pub fn value<S: AsRef<str>>(&self, path: &[S]) -> Option<&Sourced> {
        match self.content(path)? {
            Content::One(value) => Some(value),
            Content::List(_) => None,
        }
    }

    /// Returns the value at `path`, or the elements of the list there in order.
    pub fn values<S: AsRef<str>>(&self, path: &[S]) -> &[Sourced] {
        self.content(path).map(Content::values).unwrap_or_default()
    }

    /// Returns the names below `path`, in the order of the layers and of the file.
    pub fn names<S: AsRef<str>>(&self, path: &[S]) -> Vec<&str> {
        let nodes = self.node(path).into_iter();
        let names = nodes.flat_map(|node| node.below.keys());
        names.map(String::as_str).collect()
    }

    /// Iterates over the contents of all layers, those that others override included.
    pub fn contents(&self) -> impl Iterator<Item = &(Path, Content)> {
        self.contents.iter()
    }

    fn node<S: AsRef<str>>(&self, path: &[S]) -> Option<&Node> {
        let mut segments = path.iter();
        segments.try_fold(&self.tree, |node, segment| node.below.get(segment.as_ref()))
    }
}

/// Lets other threads run after every 64th step of a long loop.
///
/// When all processors are busy, a thread runs for milliseconds before the system takes its turn
/// away, and a call that arrives while a thousand deployments are read waits as long.
pub fn give_way(step: usize) {
    if step % 64 == 63 {
        thread::yield_now();
    }
}

/// Largest list index. One line with a huge one would otherwise cost gigabytes.
pub const MAX_INDEX: usize = 1023;

/// Puts the elements of a list in order of their indices, as written between the brackets.
///
/// # Errors
///
/// For every element whose index is no number, beyond [`MAX_INDEX`] or behind a gap: its position
/// among `elements`, and why. For none where the only fault is an index that is given twice.
pub fn indexed<T>(elements: Vec<(&str, T)>) -> Result<Vec<T>, Vec<(usize, String)>> {
    let count = elements.len();
    let mut faults = Vec::new();
    let mut ordered: BTreeMap<usize, (usize, T)> = BTreeMap::new();
    for (n, (index, element)) in elements.into_iter().enumerate() {
        // To Spring, `[00]` is not the `[0]` that it looks for.
        let padded = index.len() > 1 && index.starts_with('0');
        let digits = !index.is_empty() && !padded && index.chars().all(|c| c.is_ascii_digit());
        match index.parse::<usize>() {
            _ if !digits => {
                let why = "is not a list index; indices count from 0";
                faults.push((n, why.to_owned()));
            }
            Ok(index) if index <= MAX_INDEX => {
                ordered.insert(index, (n, element));
            }
            _ => faults.push((n, format!("is beyond {MAX_INDEX}, the last index allowed"))),
        }
    }
    let mut next = 0;
    for (index, (n, _)) in &ordered {
        if *index != next {
            faults.push((*n, format!("has no index {next} before it")));
        }
        next = index.saturating_add(1);
    }
    if faults.is_empty() && ordered.len() == count {
        Ok(ordered.into_values().map(|(_, element)| element).collect())
    } else {
        Err(faults)
    }
}
