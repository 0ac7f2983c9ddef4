//! What a module's files say as they are written, for procedures that change a file.

use std::collections::HashMap;
use std::path::Path;

use crate::properties::name::{Name, uniform};
use crate::properties::{Document, Entry};

use super::schema;
use super::tls::TlsEnd;

/// The settings of one or more files, found by their canonical names whatever their spelling and
/// whatever else may be wrong with the files.
///
/// This is the reader for code that edits files: it returns entries with the names as they are
/// written. Placeholders are not resolved, the environment is not read, and no value is checked;
/// that is what [`Settings::load`](super::Settings::load) does.
///
/// ```
/// use countersign::internals::{AsWritten, TlsEnd};
///
/// let text = "countersign.deployment.NAME=dpm-dev\nataccama.server.tls.on=true\n";
/// let file = AsWritten::parse("application.properties".as_ref(), text);
///
/// let name = file.get("countersign.deployment.name", &[]).unwrap();
/// assert_eq!((name.key(), name.value()), ("countersign.deployment.NAME", "dpm-dev"));
/// let on = file.tls(TlsEnd::Server, "enabled").unwrap();
/// assert_eq!(on.key(), "ataccama.server.tls.on");
/// ```
#[derive(Debug)]
pub struct AsWritten {
    document: Document,
    /// The entries of each setting, by its path in the form in which spellings agree.
    ///
    /// An element of a list comes with its index, as written.
    settings: HashMap<Vec<String>, Vec<(usize, Option<String>)>>,
    /// The names below each path, by that path.
    names: HashMap<Vec<String>, Vec<String>>,
}

impl AsWritten {
    /// Reads `text`, the content of `path`.
    pub fn parse(path: &Path, text: &str) -> Self {
        Self::of([(path, text)])
    }

    /// Reads several files: each overrides those before it, as active profiles do.
    pub fn of<'t>(files: impl IntoIterator<Item = (&'t Path, &'t str)>) -> Self {
        let mut files = files.into_iter();
        let (path, text) = files.next().unwrap_or_else(|| (Path::new(""), ""));
        let mut document = Document::parse(path, text);
        for (path, text) in files {
            document.append(path, text);
        }
        let mut read = Self {
            settings: HashMap::new(),
            names: HashMap::new(),
            document,
        };
        for (at, entry) in read.document.entries().iter().enumerate() {
            let Some(placed) = schema::exact(&Name::parse(entry.key())) else {
                continue;
            };
            let mut path = Vec::new();
            for segment in placed.path.iter() {
                let names = read.names.entry(path.clone()).or_default();
                let spelled = uniform(segment);
                if !names.iter().any(|name| uniform(name) == spelled) {
                    names.push(segment.to_string());
                }
                path.push(spelled);
            }
            let places = read.settings.entry(path).or_default();
            places.push((at, placed.index));
        }
        read
    }

    /// Returns the files as entries, with their syntax errors.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Returns the entry that decides `setting`, the last one; `keys` replace its names in angle
    /// brackets.
    ///
    /// An entry that holds one element of a list is not the setting: see [`all`](Self::all).
    pub fn get(&self, setting: &str, keys: &[&str]) -> Option<&Entry> {
        let mut whole = self.all(setting, keys).filter(|(index, _)| index.is_none());
        whole.next_back().map(|(_, entry)| entry)
    }

    /// Returns the value that decides `setting`, without the blanks around it.
    pub fn text(&self, setting: &str, keys: &[&str]) -> Option<&str> {
        Some(self.get(setting, keys)?.value().trim())
    }

    /// Returns every entry of `setting` in the order of the files, each with the index in its name.
    pub fn all(
        &self,
        setting: &str,
        keys: &[&str],
    ) -> impl DoubleEndedIterator<Item = (Option<&str>, &Entry)> {
        let places = self.settings.get(&path(setting, keys));
        places.into_iter().flatten().filter_map(|(at, index)| {
            let entry = self.document.entries().get(*at)?;
            Some((index.as_deref(), entry))
        })
    }

    /// Returns the names below `path`, such as those of the deployments, each as it is written first.
    pub fn names(&self, below: &str, keys: &[&str]) -> &[String] {
        let names = self.names.get(&path(below, keys));
        names.map_or(&[], Vec::as_slice)
    }

    /// Returns the entry that decides `property` for `end`: the most specific one that is not empty.
    pub fn tls(&self, end: TlsEnd<'_>, property: &str) -> Option<&Entry> {
        end.places(property).find_map(|place| {
            let keys: Vec<_> = place.keys.iter().map(String::as_str).collect();
            let entry = self.get(&place.pattern, &keys)?;
            (!entry.value().trim().is_empty()).then_some(entry)
        })
    }
}

/// Returns the segments of `name` in the form in which spellings agree, with `keys` filled in.
fn path(name: &str, keys: &[&str]) -> Vec<String> {
    let mut keys = keys.iter();
    let filled = name
        .split('.')
        .map(|segment| match segment.strip_prefix('<') {
            Some(_) => keys.next().copied().unwrap_or_default(),
            None => segment,
        });
    filled.map(uniform).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: &str = "ataccama.one.platform.deployments.<name>.security.roles";

    fn read(text: &str) -> AsWritten {
        AsWritten::parse(Path::new("application.properties"), text)
    }

    #[test]
    fn names_are_listed_once_as_they_are_written_first() {
        let file = read(
            "ataccama.one.platform.deployments.dpe-Dev.module=dpe\n\
             ataccama.one.platform.deployments.DPE_DEV.environment=dev\n\
             ataccama.one.platform.deployments.mmm.module=mmm\n",
        );

        let names = file.names("ataccama.one.platform.deployments", &[]);

        assert_eq!(names, ["dpe-Dev", "mmm"]);
        let environment = "ataccama.one.platform.deployments.<name>.environment";
        assert_eq!(file.get(environment, &["dpedev"]).unwrap().value(), "dev");
    }

    #[test]
    fn elements_of_a_list_come_with_their_indices() {
        let file = read(
            "ataccama.one.platform.deployments.a.security.roles[1]=B\n\
             ataccama.one.platform.deployments.a.security.roles=A\n",
        );

        let all: Vec<_> = file
            .all(ROLES, &["a"])
            .map(|(i, e)| (i, e.value()))
            .collect();

        assert_eq!(all, [(Some("1"), "B"), (None, "A")]);
        assert_eq!(file.get(ROLES, &["a"]).unwrap().value(), "A");
    }

    #[test]
    fn last_file_decides_and_an_empty_tls_property_falls_back() {
        let main = "ataccama.client.tls.cert-chain=a.pem\ncountersign.deployment.name=one\n";
        let profile = "ataccama.client.connection.dpm.tls.cert-chain= \n\
                       countersign.deployment.name=two\n";
        let files = [(Path::new("a"), main), (Path::new("b"), profile)];
        let file = AsWritten::of(files);

        let chain = file.tls(TlsEnd::Client("dpm"), "cert-chain").unwrap();

        assert_eq!(chain.value(), "a.pem");
        assert_eq!(
            file.get("countersign.deployment.name", &[])
                .unwrap()
                .value(),
            "two"
        );
        assert_eq!(
            TlsEnd::Client("dpm").setting("enabled"),
            "ataccama.client.connection.dpm.grpc.tls.enabled"
        );
    }
}
