//! Layers of values, each with its origin, put on top of each other in a tree of the `config` crate.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use config::{Config, ConfigError, Map, Source, Value, ValueKind};
use zeroize::Zeroizing;

use super::turns::Turns;
use crate::diagnostic::Origin;

/// Where a layer stands: a later one overrides an earlier one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// What holds where nobody sets anything.
    Defaults,
    /// The main file.
    File,
    /// The file of a profile, beside the main one.
    Profile,
    /// The environment.
    Environment,
    /// The options `--set`.
    SetOptions,
}

/// A text and where it comes from. `Debug` shows the origin only: the text may be a private key.
/// Cloning is cheap.
#[derive(Clone)]
pub struct Sourced {
    text: Arc<Zeroizing<String>>,
    origin: Origin,
    entry: Option<usize>,
}

impl Sourced {
    /// Takes `text`, which comes from `origin`.
    pub fn new(text: &str, origin: Origin) -> Self {
        Self {
            text: Arc::new(Zeroizing::new(text.to_owned())),
            origin,
            entry: None,
        }
    }

    /// Remembers the number of the file's entry it is from.
    #[must_use]
    pub fn with_entry(mut self, entry: usize) -> Self {
        self.entry = Some(entry);
        self
    }

    /// Gives it another text of the same origin, such as one with its placeholders resolved.
    #[must_use]
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

    /// Returns the number of the file's entry it is from.
    pub fn entry(&self) -> Option<usize> {
        self.entry
    }
}

impl fmt::Debug for Sourced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sourced")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// The path of a value: canonical segments and map keys, as `["server", "port"]`. Cloning is cheap.
pub type Path = Arc<[Cow<'static, str>]>;

/// What a layer holds at a path.
#[derive(Clone, Debug)]
pub enum Content {
    /// One value.
    One(Sourced),
    /// A whole list: it replaces whatever list an earlier layer has there.
    List(Vec<Sourced>),
}

/// The values of one origin.
#[derive(Clone, Debug)]
pub struct Layer {
    level: Level,
    contents: Vec<(Path, Content)>,
}

impl Layer {
    /// Starts an empty layer.
    pub fn new(level: Level) -> Self {
        Self {
            level,
            contents: Vec::new(),
        }
    }

    /// Sets what stands at `path`; what was set there before is forgotten.
    pub fn set(&mut self, path: Path, content: Content) {
        self.contents.push((path, content));
    }
}

/// A layer as the `config` crate gets it: the numbers of its values. A text may be a private key,
/// which that crate would print in errors and not wipe.
#[derive(Clone, Debug)]
struct Numbered(Vec<(Path, Value)>);

impl Numbered {
    /// Takes the values of `layer` to `values` and keeps their numbers.
    fn new(layer: Layer, values: &mut Vec<Sourced>) -> Self {
        let mut take = |one: Sourced| {
            let number = u64::try_from(values.len()).unwrap_or(u64::MAX);
            values.push(one);
            Value::new(None, number)
        };
        let contents = layer.contents.into_iter().map(|(path, content)| {
            let value = match content {
                Content::One(one) => take(one),
                Content::List(list) => {
                    let elements: Vec<_> = list.into_iter().map(&mut take).collect();
                    Value::new(None, elements)
                }
            };
            (path, value)
        });
        Self(contents.collect())
    }
}

impl Source for Numbered {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let mut cache = Value::from(Map::<String, Value>::new());
        self.collect_to(&mut cache)?;
        cache.into_table()
    }

    /// Lists replace lists, where the `config` crate by itself would keep the tail of a longer one,
    /// and with it a role somebody meant to take away.
    fn collect_to(&self, cache: &mut Value) -> Result<(), ConfigError> {
        for (path, value) in Turns::new(128).through(&self.0) {
            if let Some(place) = place(cache, path) {
                *place = value.clone();
            }
        }
        Ok(())
    }
}

/// Finds or makes the place of `path` in `tree`.
fn place<'a>(tree: &'a mut Value, path: &[Cow<'static, str>]) -> Option<&'a mut Value> {
    let mut place = tree;
    for segment in path {
        if !matches!(place.kind, ValueKind::Table(_)) {
            place.kind = ValueKind::Table(Map::new());
        }
        let ValueKind::Table(table) = &mut place.kind else {
            return None;
        };
        if !table.contains_key(segment.as_ref()) {
            table.insert(segment.to_string(), Value::default());
        }
        place = table.get_mut(segment.as_ref())?;
    }
    Some(place)
}

/// Layers on top of each other: for every path the value that counts, with its origin.
#[derive(Clone)]
pub struct Layered {
    config: Config,
    values: Vec<Sourced>,
    paths: Vec<Path>,
}

impl Layered {
    /// Puts `layers` on top of each other, in order of their levels.
    ///
    /// # Errors
    ///
    /// When the `config` crate refuses a layer, which ours give no reason for.
    pub fn new(mut layers: Vec<Layer>) -> Result<Self, ConfigError> {
        layers.sort_by_key(|layer| layer.level);
        let contents = layers.iter().flat_map(|layer| &layer.contents);
        let paths = contents.map(|(path, _)| Arc::clone(path)).collect();
        let mut values = Vec::new();
        // Not the crate's builder, which copies the tree twice more.
        let mut config = Config::default();
        for layer in layers {
            Numbered::new(layer, &mut values).collect_to(&mut config.cache)?;
        }
        Ok(Self {
            config,
            values,
            paths,
        })
    }

    /// Returns the value at `path`.
    pub fn value<S: AsRef<str>>(&self, path: &[S]) -> Option<&Sourced> {
        self.numbered(self.node(path)?)
    }

    /// Returns the list at `path`, the elements in order.
    pub fn list<S: AsRef<str>>(&self, path: &[S]) -> Option<Vec<&Sourced>> {
        let ValueKind::Array(elements) = &self.node(path)?.kind else {
            return None;
        };
        elements.iter().map(|value| self.numbered(value)).collect()
    }

    /// Returns the names below `path`, in the order of the layers and of the file.
    pub fn names<S: AsRef<str>>(&self, path: &[S]) -> Vec<&str> {
        match self.node(path).map(|value| &value.kind) {
            Some(ValueKind::Table(table)) => table.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Goes through all values, those that others override included.
    pub fn values(&self) -> impl Iterator<Item = &Sourced> {
        self.values.iter()
    }

    /// Goes through the paths that are set, one that several layers set as often.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter()
    }

    #[cfg(test)]
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    fn node<S: AsRef<str>>(&self, path: &[S]) -> Option<&Value> {
        path.iter().try_fold(&self.config.cache, |value, segment| {
            let ValueKind::Table(table) = &value.kind else {
                return None;
            };
            table.get(segment.as_ref())
        })
    }

    fn numbered(&self, value: &Value) -> Option<&Sourced> {
        let ValueKind::U64(number) = value.kind else {
            return None;
        };
        self.values.get(usize::try_from(number).ok()?)
    }
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered")
            .field("values", &self.values.len())
            .finish_non_exhaustive()
    }
}

/// Why the indices of a list are refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// Not a number, or a negative one.
    #[error("is not a list index; indices count from 0")]
    NotAnIndex,
    /// Beyond 1023.
    #[error("is beyond 1023, the last index allowed")]
    TooLarge,
    /// Given twice.
    #[error("is given twice")]
    Twice,
    /// The one before it is missing.
    #[error("comes without the index {0} before it")]
    Gap(usize),
}

/// Largest list index. One line with a huge one would otherwise cost gigabytes.
pub const MAX_INDEX: usize = 1023;

/// Puts the elements of a list in order of their indices, as written between the brackets.
///
/// # Errors
///
/// For every element whose index is no number, beyond [`MAX_INDEX`], given twice, or behind a gap:
/// its position among `elements`, and why.
pub fn indexed<T>(elements: Vec<(&str, T)>) -> Result<Vec<T>, Vec<(usize, IndexError)>> {
    let mut faults = Vec::new();
    let mut ordered: BTreeMap<usize, (usize, T)> = BTreeMap::new();
    for (n, (index, element)) in elements.into_iter().enumerate() {
        // To Spring, `[00]` is not the `[0]` that it looks for.
        let padded = index.len() > 1 && index.starts_with('0');
        let digits = !index.is_empty() && !padded && index.chars().all(|c| c.is_ascii_digit());
        match index.parse::<usize>() {
            _ if !digits => faults.push((n, IndexError::NotAnIndex)),
            Ok(index) if index <= MAX_INDEX => {
                if ordered.insert(index, (n, element)).is_some() {
                    faults.push((n, IndexError::Twice));
                }
            }
            _ => faults.push((n, IndexError::TooLarge)),
        }
    }
    let mut next = 0;
    for (index, (n, _)) in &ordered {
        if *index != next {
            faults.push((*n, IndexError::Gap(next)));
        }
        next = index.saturating_add(1);
    }
    if faults.is_empty() {
        Ok(ordered.into_values().map(|(_, element)| element).collect())
    } else {
        Err(faults)
    }
}
