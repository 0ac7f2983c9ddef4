//! From a file's entries, the environment and `--set` to layers of our settings.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ::config::Map;

use crate::diagnostic::{Code, Finding, Origin, Severity, quote, redact, redact_name};
use crate::properties::name::{Name, Variable, uniform};
use crate::properties::{Content, Entry, Layered, Path, Sourced, Span, bind, give_way, indexed};

use super::question::{ModuleKind, Question};
use super::rules::file;
use super::schema::{self, DEPLOYMENTS, Known, Placed, Takes};
use super::settings::Ignored;
use super::spring::Texts;
use super::view::{Limited, Part, View};

/// What the entries of the files are.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Entries that are not read: recognised settings that are not used, and foreign names.
    pub unread: Vec<usize>,
    /// Settings with foreign names.
    pub ignored: Vec<Ignored>,
    /// Every entry of ours in an active document, and the setting it is of.
    pub ours: Vec<(usize, Placed)>,
    /// Those in documents that are not active.
    pub inactive: Vec<(usize, Placed)>,
}

/// Puts the defaults, what `known` says of the entries of `view` that are not `skipped`, the
/// environment and `--set` on top of each other, the lowest first; each active document is a layer.
pub fn gather(
    view: &View,
    texts: &Texts,
    (known, skipped): (Vec<Known>, &HashSet<usize>),
    question: &Question,
    findings: &mut Limited,
) -> (Layered, Gathered) {
    let layers = texts.order.iter().enumerate();
    let layer_of: HashMap<_, _> = layers.map(|(layer, document)| (*document, layer)).collect();
    let active = known.iter().enumerate().filter(|(at, _)| {
        !skipped.contains(at) && layer_of.contains_key(&view.document.document_of_entry(*at))
    });
    let given = question.sets.iter();
    let sets: Vec<_> = given
        .map(|(name, _)| schema::find(&Name::parse(name)))
        .collect();
    let mut gatherer = Gatherer {
        spellings: spellings(active.map(|(_, known)| known).chain(&sets)),
        layer_of,
        layered: defaults(question.kind.as_ref()),
        view,
        question,
        findings,
    };
    let all = known.into_iter().enumerate();
    let found = gatherer.files(all.filter(|(at, _)| !skipped.contains(at)));
    if question.overrides() {
        gatherer.environment();
        gatherer.options();
    }
    (gatherer.layered, found)
}

fn defaults(kind: Option<&ModuleKind>) -> Layered {
    let mut layered = Layered::default();
    for setting in schema::settings().filter(|setting| !setting.name.contains('<')) {
        let Some(text) = setting.fallback.of(kind) else {
            continue;
        };
        let path = setting.name.split('.').map(Cow::Borrowed).collect();
        let value = Sourced::new(text, Origin::Default).of(&path);
        layered.push(path, Content::One(value));
    }
    layered
}

struct Gatherer<'a> {
    view: &'a View,
    /// The layer of each active document.
    layer_of: HashMap<usize, usize>,
    question: &'a Question,
    /// The trusted deployments, each as the vendor's part of the settings spells it.
    ///
    /// Settings under `countersign.deployments` are filed under that spelling, whatever their own:
    /// two spellings of one setting are one setting given twice.
    spellings: HashMap<String, String>,
    layered: Layered,
    findings: &'a mut Limited,
}

impl Gatherer<'_> {
    /// Sorts the entries of the files into what is ours and what is not.
    fn files(&mut self, known: impl Iterator<Item = (usize, Known)>) -> Gathered {
        let view = self.view;
        let mut gathered = Gathered::default();
        let mut layers: Vec<_> = self.layer_of.iter().map(|_| Values::default()).collect();
        for (at, known) in known {
            give_way(at);
            let layer = self.layer_of.get(&view.document.document_of_entry(at));
            let Some(values) = layer.and_then(|layer| layers.get_mut(*layer)) else {
                let placed = known.used().cloned();
                gathered.inactive.extend(placed.map(|placed| (at, placed)));
                gathered.unread.push(at);
                continue;
            };
            let Some(entry) = view.entry(at) else {
                continue;
            };
            match known {
                Known::Setting(placed) if placed.setting.is_used() => {
                    let placed = self.respelled(placed);
                    if let Some(value) = view.value(at) {
                        add(values, placed.clone(), value);
                    }
                    gathered.ours.push((at, placed));
                }
                Known::Unknown => self.findings.add(Code::Cs0106, || {
                    let meant = schema::nearest(&Name::parse(entry.key()));
                    unknown(entry.key(), meant, Some((view, entry.key_span)))
                }),
                Known::Setting(Placed { setting, .. }) => {
                    gathered.unread.push(at);
                    if let Takes::Unused(why) = setting.takes
                        && !self.question.is_run()
                    {
                        let message = format!("this setting is not used: {why}");
                        let found = view.finding(Code::Cs0305, entry.key_span, message);
                        self.findings.push(found.with_key(redact(entry.key())));
                    }
                }
                Known::NearMiss(meant) => {
                    let message = format!("{} is not a countersign setting", quote(entry.key()));
                    let found = view.finding(Code::Cs0107, entry.key_span, message);
                    let help = format!("if you mean `{meant}`, write that; otherwise ignore this");
                    self.findings
                        .push(found.with_key(redact(entry.key())).with_help(help));
                    gathered.ignore(at, entry, view, self.question);
                }
                Known::Foreign => {
                    self.findings.extend(file::behind_a_word(view, entry));
                    gathered.ignore(at, entry, view, self.question);
                }
            }
        }
        for values in layers {
            self.layer(values);
        }
        gathered
    }

    fn respelled(&self, mut placed: Placed) -> Placed {
        const OURS: &str = "countersign.deployments.<name>.";
        let mut path = placed.path.to_vec();
        if placed.setting.canonical.starts_with(OURS)
            && let Some(name) = path.get_mut(2)
            && let Some(spelled) = self.spellings.get(&uniform(name))
        {
            *name = spelled.clone().into();
            placed.path = path.into();
        }
        placed
    }

    /// Finds the variables that override a setting; map keys are those of the files.
    fn environment(&mut self) {
        let mut values = Values::default();
        for (name, value) in self.question.settings() {
            let variable = Variable::parse(name);
            let origin = Origin::Environment(name.into());
            let layered = &self.layered;
            let overridden = schema::overridden(&variable, |name, keys| names(layered, name, keys));
            if let Some(placed) = overridden {
                add(&mut values, placed, Sourced::new(value, origin));
            } else if schema::strict_family(&variable.words.concat()).is_some() {
                let message = format!("no setting matches the variable {}", quote(name));
                let help = "variables override settings and deployments of the file; they cannot add a deployment or a key";
                let found = Finding::new(Code::Cs0106, origin, message);
                self.findings.push(found.with_help(help));
            }
        }
        self.layer(values);
    }

    /// Reads `name=value` options.
    fn options(&mut self) {
        let mut values = Values::default();
        for (name, value) in &self.question.sets {
            let parsed = Name::parse(name);
            let found = match schema::find(&parsed) {
                // Every process of the machine can read the arguments.
                Known::Setting(placed) if placed.setting.is_private() => {
                    let key = placed.name();
                    let message = format!(
                        "`{key}` cannot be given with `--set`: every user can read a command line"
                    );
                    Finding::new(Code::Cs0108, Origin::SetOption, message)
                        .with_severity(Severity::Error)
                        .with_key(key)
                        .with_help("put the key in the file or in an environment variable")
                }
                Known::Setting(placed) if placed.setting.is_used() => {
                    let value = Sourced::new(value, Origin::SetOption);
                    add(&mut values, self.respelled(placed), value);
                    continue;
                }
                Known::Unknown => unknown(name, schema::nearest(&parsed), None),
                Known::NearMiss(meant) => unknown(name, Some(meant), None),
                Known::Setting(_) | Known::Foreign => unknown(name, None, None),
            };
            self.findings.push(found);
        }
        self.layer(values);
    }

    fn layer(&mut self, values: Values) {
        for (path, given) in values {
            if given.len() > 1 {
                self.duplicates(&given);
            }
            // The last value without an index wins, also over elements: `roles` over `roles[0]`.
            let mut whole = given.iter().rev().filter(|(at, _)| at.index.is_none());
            let content = match whole.next() {
                Some((at, value)) if matches!(at.setting.takes, Takes::List) => {
                    let texts = bind::list(value.text()).into_iter();
                    let list = texts.map(|text| value.clone().with_text(text.to_owned().into()));
                    Content::List(list.collect())
                }
                Some((_, value)) => Content::One(value.clone()),
                None => Content::List(self.in_order(&given)),
            };
            self.layered.push(path, content);
        }
    }

    /// Puts the elements of a list in order, or reports why it cannot.
    fn in_order(&mut self, given: &[(Placed, Sourced)]) -> Vec<Sourced> {
        let elements = given.iter();
        let elements =
            elements.filter_map(|(at, value)| Some((at.index.as_deref()?, value.clone())));
        let faults = match indexed(elements.collect()) {
            Ok(list) => return list,
            Err(faults) => faults.into_iter(),
        };
        // An index that is given twice is CS0103.
        for (at, error) in faults {
            if let Some((placed, value)) = given.get(at) {
                let name = placed.name();
                let index = quote(placed.index.as_deref().unwrap_or_default());
                let message = format!("index {index} of `{name}` {error}");
                let help = format!(
                    "number the elements `{name}[0]`, `{name}[1]` and so on, or write `{name}=A,B`"
                );
                let found = self.view.about(Code::Cs0109, value, Part::Name, message);
                self.findings.push(found.with_help(help));
            }
        }
        Vec::new()
    }

    /// Reports every value that a later one of the same name overrules.
    fn duplicates(&mut self, given: &[(Placed, Sourced)]) {
        let mut seen: BTreeMap<Option<&str>, &Sourced> = BTreeMap::new();
        let whole = given.iter().find(|(at, _)| at.index.is_none());
        for (placed, value) in given {
            let index = placed.index.as_deref();
            let earlier = seen.insert(index, value);
            let mixed = whole.filter(|_| index.is_some()).map(|(_, value)| value);
            let Some(other) = earlier.or(mixed) else {
                continue;
            };
            let name = placed.name();
            let what = match index {
                Some(index) if earlier.is_some() => format!("element {} of `{name}`", quote(index)),
                _ => format!("`{name}`"),
            };
            let message = format!("{what} is also set at {}", other.origin());
            let twice = self.view.about(Code::Cs0103, value, Part::Name, message);
            let found = twice.with_help("keep one of the two");
            let is_error = placed.setting.decides_trust();
            self.findings.push(found.error_if(is_error));
        }
    }
}

impl Gathered {
    /// Notes an entry with a foreign name, which only a check shows.
    fn ignore(&mut self, at: usize, entry: &Entry, view: &View, question: &Question) {
        self.unread.push(at);
        if !question.is_run() {
            self.ignored.push(Ignored {
                origin: view.document.origin(entry.key_span.start),
                name: redact_name(entry.key()),
            });
        }
    }
}

/// Collects how the trusted deployments are spelled in settings.
fn spellings<'k>(all: impl Iterator<Item = &'k Known>) -> HashMap<String, String> {
    let mut spellings = HashMap::new();
    for known in all {
        if let Known::Setting(placed) = known
            && placed.setting.canonical.starts_with(DEPLOYMENTS)
            && let Some(name) = placed.path.get(DEPLOYMENTS.split('.').count())
        {
            let spelled = spellings.entry(uniform(name));
            spelled.or_insert_with(|| name.to_string());
        }
    }
    spellings
}

/// Reports an unknown setting of a file or of the options.
fn unknown(name: &str, meant: Option<String>, at: Option<(&View, Span)>) -> Finding {
    let message = format!("unknown setting {}", quote(name));
    let found = match at {
        Some((view, span)) => view.finding(Code::Cs0106, span, message),
        None => Finding::new(Code::Cs0106, Origin::SetOption, message),
    };
    let help = match meant {
        Some(meant) => format!("write `{meant}`"),
        None => "remove it, or correct its name".to_owned(),
    };
    let named = found.with_key(redact(name)).with_help(help);
    named.with_label("unknown name")
}

/// Lists the map keys that are set at the next angle bracket of the setting `name`, after `keys`.
fn names(layered: &Layered, name: &str, keys: &[String]) -> Vec<String> {
    // What we add about a deployment is about one of the vendor's part of the file.
    let pattern = match keys {
        [] => name.replace("countersign.deployments", DEPLOYMENTS),
        _ => name.to_owned(),
    };
    let Some((end, _)) = pattern.match_indices(".<").nth(keys.len()) else {
        return Vec::new();
    };
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let above = schema::path(pattern.get(..end).unwrap_or_default(), &keys);
    let always = pattern.contains("client.connection.<c>").then_some("dpm");
    let found = always.into_iter().chain(layered.names(&above));
    found.map(str::to_owned).collect()
}

/// The values of each setting, in the order in which they are given.
type Values = Map<Path, Vec<(Placed, Sourced)>>;

fn add(values: &mut Values, placed: Placed, value: Sourced) {
    let given = value.of(&placed.path);
    let path = Arc::clone(&placed.path);
    // Most have one value; room for more would be most of what is held.
    let all = values.entry(path).or_insert_with(|| Vec::with_capacity(1));
    all.push((placed, given));
}
