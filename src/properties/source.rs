//! Layers of values, each with its origin, put on top of each other by the `config` crate.

use std::collections::BTreeMap;
use std::fmt;

use config::{Config, ConfigError, Map, Source, Value, ValueKind};
use zeroize::Zeroizing;

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
#[derive(Clone)]
pub struct Sourced {
    text: Zeroizing<String>,
    origin: Origin,
    entry: Option<usize>,
}

impl Sourced {
    /// Takes `text`, which comes from `origin`.
    pub fn new(text: &str, origin: Origin) -> Self {
        Self {
            text: Zeroizing::new(text.to_owned()),
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
        self.text = text;
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

/// The path of a value: canonical segments and map keys, as `["server", "port"]`.
pub type Path = Vec<String>;

/// What a layer holds at a path.
#[derive(Clone, Debug)]
pub enum Content {
    /// One value.
    One(Sourced),
    /// One value that stays out of the `config` crate's hands, which would print it in errors and
    /// not wipe it.
    Private(Sourced),
    /// A whole list: it replaces whatever list an earlier layer has there.
    List(Vec<Sourced>),
}

/// The values of one origin. A source for the `config` crate.
///
/// Its values carry their origin; lists replace lists, where that crate by itself would keep the
/// tail of a longer one, and with it a role somebody meant to take away.
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

    /// Returns where the layer stands.
    pub fn level(&self) -> Level {
        self.level
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let mut cache = Value::from(Map::<String, Value>::new());
        self.collect_to(&mut cache)?;
        cache.into_table()
    }

    fn collect_to(&self, cache: &mut Value) -> Result<(), ConfigError> {
        for (path, content) in &self.contents {
            let value = match content {
                Content::One(one) => value(one, one.text()),
                Content::Private(one) => value(one, ""),
                Content::List(list) => {
                    let elements = list.iter().map(|one| value(one, one.text()));
                    Value::new(None, elements.collect::<Vec<_>>())
                }
            };
            if let Some(place) = place(cache, path) {
                *place = value;
            }
        }
        Ok(())
    }
}

fn value(one: &Sourced, text: &str) -> Value {
    Value::new(Some(&one.origin.to_string()), text)
}

/// Finds or makes the place of `path` in `tree`.
fn place<'a>(tree: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    let mut place = tree;
    for segment in path {
        if !matches!(place.kind, ValueKind::Table(_)) {
            place.kind = ValueKind::Table(Map::new());
        }
        let ValueKind::Table(table) = &mut place.kind else {
            return None;
        };
        place = table.entry(segment.clone()).or_default();
    }
    Some(place)
}

/// Layers on top of each other: for every path the value that counts, with its origin.
#[derive(Clone)]
pub struct Layered {
    config: Config,
    texts: BTreeMap<(Path, String), Sourced>,
}

impl Layered {
    /// Puts `layers` on top of each other, in order of their levels.
    ///
    /// # Errors
    ///
    /// When the `config` crate refuses a layer, which ours give no reason for.
    pub fn new(mut layers: Vec<Layer>) -> Result<Self, ConfigError> {
        layers.sort_by_key(Layer::level);
        let mut texts = BTreeMap::new();
        for (path, content) in layers.iter().flat_map(|layer| &layer.contents) {
            let list = match content {
                Content::One(one) | Content::Private(one) => std::slice::from_ref(one),
                Content::List(list) => list,
            };
            for (n, one) in list.iter().enumerate() {
                let mut path = path.clone();
                if matches!(content, Content::List(_)) {
                    path.push(n.to_string());
                }
                texts.insert((path, one.origin.to_string()), one.clone());
            }
        }
        let builder = layers
            .into_iter()
            .fold(Config::builder(), |builder, layer| {
                builder.add_source(layer)
            });
        let config = builder.build()?;
        Ok(Self { config, texts })
    }

    /// Returns the value at `path`.
    pub fn value(&self, path: &[String]) -> Option<&Sourced> {
        let value = self.node(path)?;
        self.sourced(path.to_vec(), value)
    }

    /// Returns the list at `path`, the elements in order.
    pub fn list(&self, path: &[String]) -> Option<Vec<&Sourced>> {
        let ValueKind::Array(elements) = &self.node(path)?.kind else {
            return None;
        };
        let element = |(n, value): (usize, &Value)| {
            let mut path = path.to_vec();
            path.push(n.to_string());
            self.sourced(path, value)
        };
        elements.iter().enumerate().map(element).collect()
    }

    /// Returns the names below `path`, in the order of the layers and of the file.
    pub fn names(&self, path: &[String]) -> Vec<&str> {
        match self.node(path).map(|value| &value.kind) {
            Some(ValueKind::Table(table)) => table.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Goes through the paths of all values, overridden ones too; a list's elements have their own.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.texts.keys().map(|(path, _)| path)
    }

    fn node(&self, path: &[String]) -> Option<&Value> {
        path.iter().try_fold(&self.config.cache, |value, segment| {
            let ValueKind::Table(table) = &value.kind else {
                return None;
            };
            table.get(segment)
        })
    }

    fn sourced(&self, path: Path, value: &Value) -> Option<&Sourced> {
        self.texts.get(&(path, value.origin()?.to_owned()))
    }
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered")
            .field("values", &self.texts.len())
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
