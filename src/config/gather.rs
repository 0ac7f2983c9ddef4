//! From a file's entries, the environment and `--set` to layers of our settings.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::diagnostic::{Code, Finding, Origin, Severity, quote};
use crate::properties::name::{Name, Variable, uniform};
use crate::properties::{Content, IndexError, Layer, Path, Sourced, Span, bind, give_way, indexed};

use super::rules::lost;
use super::schema::{self, Known, Placed, Setting, Takes};
use super::view::{Limited, Part, View, finding};

/// What was found on the way.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) findings: Limited,
    /// Settings that are recognised and not used: the entry and the setting.
    pub(super) unused: Vec<(usize, &'static Setting)>,
    /// Entries with foreign names.
    pub(super) ignored: Vec<usize>,
    /// Every entry of ours and the setting it is of.
    pub(super) ours: Vec<(usize, Placed)>,
}

/// Sorts the entries of `view`, without those in `skipped`, into what is ours and what is not; each
/// file is a layer.
pub(super) fn files(
    view: &View,
    known: Vec<Known>,
    skipped: &[usize],
    spellings: &Spellings,
) -> (Vec<Layer>, Gathered) {
    let mut gathered = Gathered::default();
    let files = view.document().file_starts();
    let mut values: Vec<_> = files.map(|_| Values::default()).collect();
    for (at, (entry, known)) in view.entries().iter().zip(known).enumerate() {
        give_way(at);
        if skipped.contains(&at) {
            continue;
        }
        match known {
            Known::Setting(placed) if !placed.setting.is_used() => {
                gathered.unused.push((at, placed.setting));
            }
            Known::Setting(placed) => {
                let placed = spellings.placed(placed);
                let origin = view.document().origin(entry.value_span().start);
                let value = Sourced::new(entry.value(), origin).with_entry(at);
                if let Some(values) = values.get_mut(view.document().file_of_entry(at)) {
                    values.add(placed.clone(), value);
                }
                gathered.ours.push((at, placed));
            }
            Known::Unknown => gathered.findings.add(Code::Cs0106, || {
                let meant = schema::nearest(&Name::parse(entry.key()));
                let found = unknown(entry.key(), meant.as_deref());
                report(view, entry.key_span(), found)
            }),
            Known::NearMiss(meant) => {
                let message = format!("{} is not a countersign setting", quote(entry.key()));
                let found = Finding::new(Code::Cs0107, Origin::Default, message)
                    .with_key(crate::diagnostic::redact(entry.key()))
                    .with_help(format!(
                        "if you mean `{meant}`, write that; otherwise ignore this"
                    ));
                gathered
                    .findings
                    .push(report(view, entry.key_span(), found));
                gathered.ignored.push(at);
            }
            Known::Foreign => {
                let found = lost::behind_a_word(view, entry);
                gathered.findings.extend(found);
                gathered.ignored.push(at);
            }
        }
    }
    let layers = values
        .into_iter()
        .map(|values| values.into_layer(view, &mut gathered.findings));
    (layers.collect(), gathered)
}

/// The trusted deployments, each as the vendor's part of the settings spells it.
///
/// Settings under `countersign.deployments` are filed under that spelling, whatever their own: two
/// spellings of one setting are one setting given twice.
#[derive(Debug, Default)]
pub(super) struct Spellings(HashMap<String, String>);

impl Spellings {
    /// Collects the spellings of a file's entries, without those in `skipped`, and of `--set`.
    pub(super) fn of(known: &[Known], skipped: &[usize], sets: &[(String, String)]) -> Self {
        let mut spellings = Self::default();
        for (at, known) in known.iter().enumerate() {
            if !skipped.contains(&at) {
                spellings.note(known);
            }
        }
        for (name, _) in sets {
            spellings.note(&schema::find(&Name::parse(name)));
        }
        spellings
    }

    fn note(&mut self, known: &Known) {
        let Known::Setting(placed) = known else {
            return;
        };
        if !placed.setting.canonical().starts_with(DEPLOYMENTS) {
            return;
        }
        if let Some(name) = placed.path.get(DEPLOYMENTS.split('.').count()) {
            let spelled = self.0.entry(uniform(name));
            spelled.or_insert_with(|| name.to_string());
        }
    }

    fn placed(&self, placed: Placed) -> Placed {
        const OURS: &str = "countersign.deployments.<name>.";
        const NAME: usize = 2;
        if !placed.setting.canonical().starts_with(OURS) {
            return placed;
        }
        let trusted = placed.path.get(NAME).map(|name| uniform(name));
        match trusted.and_then(|name| self.0.get(&name)) {
            Some(name) => placed.with_key(NAME, name),
            None => placed,
        }
    }
}

fn unknown(name: &str, meant: Option<&str>) -> Finding {
    let message = format!("unknown setting {}", quote(name));
    let help = meant.map_or_else(
        || "remove it, or correct its name".to_owned(),
        |meant| format!("write `{meant}`"),
    );
    Finding::new(Code::Cs0106, Origin::Default, message)
        .with_key(crate::diagnostic::redact(name))
        .with_help(help)
        .with_label("unknown name")
}

/// Gives a finding its place.
fn report(view: &View, span: Span, found: Finding) -> Finding {
    found
        .with_origin(view.document().origin(span.start))
        .with_snippet(Some(view.snippet(span)))
}

/// Finds the variables that override a setting; map keys are those of `ours`.
pub(super) fn environment(
    view: &View,
    environment: &[(String, String)],
    ours: &[(usize, Placed)],
    findings: &mut Limited,
) -> Layer {
    let mut values = Values::default();
    for (name, value) in environment {
        let variable = Variable::parse(name);
        let origin = Origin::Environment(name.as_str().into());
        if let Some(placed) = overridden(&variable, ours) {
            values.add(placed, Sourced::new(value, origin));
        } else if claims_ours(&variable) {
            let message = format!("no setting matches the variable {}", quote(name));
            findings.push(
                Finding::new(Code::Cs0106, origin, message)
                    .with_help("variables override settings and deployments of the file; they cannot add a deployment or a key"),
            );
        }
    }
    values.into_layer(view, findings)
}

fn overridden(variable: &Variable, ours: &[(usize, Placed)]) -> Option<Placed> {
    schema::overridable().find_map(|(pattern, setting)| {
        let known = |keys: &[String]| names(ours, setting.name(), keys);
        let found = pattern.matches_variable(variable, &known)?;
        let index = match found.rest.as_slice() {
            [] => None,
            [index] if matches!(setting.takes(), Takes::List) => Some(index.clone()),
            _ => return None,
        };
        Some(Placed::new(setting, &found.keys, index))
    })
}

/// Returns `true` if an unknown variable must be meant for us. Kubernetes makes variables such as
/// `COUNTERSIGN_SERVICE_HOST` for a service of our name; those are not.
fn claims_ours(variable: &Variable) -> bool {
    let joined: Vec<_> = variable.words().iter().map(String::as_str).collect();
    let joined = joined.concat();
    let families = schema::settings().filter_map(|setting| {
        let (first, rest) = setting.name().split_once('.')?;
        (first == "countersign")
            .then(|| rest.split('.').next())
            .flatten()
    });
    let mut prefixes = families.map(|family| format!("countersign{family}"));
    let vendor = [
        "ataccamaoneplatformdeployments",
        "ataccamaauthenticationinternaljwt",
    ];
    vendor.iter().any(|prefix| joined.starts_with(prefix))
        || (!joined.starts_with("countersignservicehost")
            && prefixes.any(|prefix| joined.starts_with(&prefix)))
}

/// Reads `name=value` options.
pub(super) fn options(
    view: &View,
    sets: &[(String, String)],
    spellings: &Spellings,
    findings: &mut Limited,
) -> Layer {
    let mut values = Values::default();
    for (name, value) in sets {
        let found = match schema::find(&Name::parse(name)) {
            Known::Setting(placed) if placed.setting.is_private() => {
                readable_by_all(&placed.name())
            }
            Known::Setting(placed) if placed.setting.is_used() => {
                let value = Sourced::new(value, Origin::SetOption);
                values.add(spellings.placed(placed), value);
                continue;
            }
            Known::Unknown => unknown(name, schema::nearest(&Name::parse(name)).as_deref()),
            Known::NearMiss(meant) => unknown(name, Some(&meant)),
            _ => unknown(name, None),
        };
        findings.push(found.with_origin(Origin::SetOption));
    }
    values.into_layer(view, findings)
}

/// Refuses a private key among the arguments, which every process of the machine can read.
fn readable_by_all(name: &str) -> Finding {
    let message =
        format!("`{name}` cannot be given with `--set`: every user can read a command line");
    Finding::new(Code::Cs0108, Origin::SetOption, message)
        .with_severity(Severity::Error)
        .with_key(name)
        .with_help("put the key in the file or in an environment variable")
}

/// Lists the map keys of `ours` at the place of `pattern`'s next angle bracket, after `keys`.
fn names(ours: &[(usize, Placed)], pattern: &str, keys: &[String]) -> Vec<String> {
    // What we add about a deployment is about one of the vendor's part of the file.
    let pattern = match keys {
        [] => pattern.replace("countersign.deployments", DEPLOYMENTS),
        _ => pattern.to_owned(),
    };
    let mut places = pattern.match_indices('<');
    let Some((end, _)) = places.nth(keys.len()) else {
        return Vec::new();
    };
    let before = pattern.get(..end).unwrap_or_default().trim_end_matches('.');
    let before = schema::path(before, keys);
    let mut found: Vec<String> = Vec::new();
    if pattern.contains("client.connection.<c>") {
        found.push("dpm".to_owned());
    }
    for (_, placed) in ours {
        let is_below = placed
            .path
            .iter()
            .zip(&before)
            .all(|(one, other)| one == other);
        let key = placed.path.get(before.len()).filter(|_| is_below);
        if let Some(key) = key.filter(|key| !found.iter().any(|other| other == *key)) {
            found.push(key.to_string());
        }
    }
    found
}

pub(super) const DEPLOYMENTS: &str = "ataccama.one.platform.deployments";

/// Values by place; knows duplicates and puts lists together.
#[derive(Debug, Default)]
struct Values {
    places: Vec<(Placed, Vec<Given>)>,
    by_path: HashMap<Path, usize>,
}

#[derive(Debug)]
struct Given {
    index: Option<String>,
    value: Sourced,
}

impl Values {
    fn add(&mut self, placed: Placed, value: Sourced) {
        let next = self.places.len();
        let at = *self.by_path.entry(Arc::clone(&placed.path)).or_insert(next);
        let index = placed.index.clone();
        let value = value.of(&placed.path);
        let given = Given { index, value };
        match self.places.get_mut(at) {
            Some((_, all)) => all.push(given),
            None => self.places.push((placed, vec![given])),
        }
    }

    fn into_layer(self, view: &View, findings: &mut Limited) -> Layer {
        let mut layer = Layer::new();
        for (placed, given) in self.places {
            if given.len() > 1 {
                duplicates(&placed, &given, view, findings);
            }
            let is_list = matches!(placed.setting.takes(), Takes::List);
            // The last value without an index wins, also over elements: `roles` over `roles[0]`.
            let whole = given.iter().rev().find(|given| given.index.is_none());
            let content = match whole {
                Some(whole) if is_list => Content::List(split(&whole.value)),
                Some(whole) => Content::One(whole.value.clone()),
                None => Content::List(in_order(&placed, &given, view, findings)),
            };
            layer.push((placed.path, content));
        }
        layer
    }
}

fn split(value: &Sourced) -> Vec<Sourced> {
    let element = |text: &str| value.clone().with_text(text.to_owned().into());
    bind::list(value.text()).into_iter().map(element).collect()
}

/// Puts the elements of a list in order, or reports why it cannot.
fn in_order(placed: &Placed, given: &[Given], view: &View, findings: &mut Limited) -> Vec<Sourced> {
    let elements = given.iter();
    let elements = elements.filter_map(|g| Some((g.index.as_deref()?, g.value.clone())));
    let faults = match indexed(elements.collect()) {
        Ok(list) => return list,
        Err(faults) => faults,
    };
    let name = placed.name();
    for (at, error) in faults {
        // An index that is given twice is CS0103.
        let at = given.get(at).filter(|_| error != IndexError::Twice);
        if let Some(Given { index, value }) = at {
            let index = quote(index.as_deref().unwrap_or_default());
            let message = format!("index {index} of `{name}` {error}");
            let help = format!(
                "number the elements `{name}[0]`, `{name}[1]` and so on, or write `{name}=A,B`"
            );
            let found = finding(view, Code::Cs0109, value, Part::Name, message);
            findings.push(found.with_help(help));
        }
    }
    Vec::new()
}

/// Reports every value that a later one of the same name overrules.
fn duplicates(placed: &Placed, given: &[Given], view: &View, findings: &mut Limited) {
    let mut seen: BTreeMap<Option<&str>, &Sourced> = BTreeMap::new();
    let name = placed.name();
    let severity = if placed.setting.decides_trust() {
        Severity::Error
    } else {
        Severity::Warning
    };
    let whole = given.iter().find(|given| given.index.is_none());
    for Given { index, value } in given {
        let earlier = seen.insert(index.as_deref(), value);
        let mixed = whole.filter(|_| index.is_some()).map(|whole| &whole.value);
        let Some(other) = earlier.or(mixed) else {
            continue;
        };
        let what = match index {
            Some(index) if earlier.is_some() => format!("element {} of `{name}`", quote(index)),
            _ => format!("`{name}`"),
        };
        let message = format!("{what} is also set at {}", other.origin());
        let found = finding(view, Code::Cs0103, value, Part::Name, message);
        findings.push(
            found
                .with_severity(severity)
                .with_help("keep one of the two"),
        );
    }
}
