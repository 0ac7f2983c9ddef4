//! One test per code, the seed's own files, and what may never happen.

mod certificates;
mod cross;
mod cross_tls;
mod deployment_codes;
mod edits;
mod etcd;
mod file_rows;
mod hosts;
mod key_codes;
mod key_rows;
mod large_files;
mod loading;
mod lost_names;
mod names;
mod own_key_rows;
mod profiles;
mod replicas;
mod rotation;
mod secrets;
mod seed;
pub mod spring;
mod text_codes;
mod tls;

use std::fs;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tempfile::TempDir;

use crate::diagnostic::{Code, Finding, Findings, Origin, Severity};
use crate::jose::{KeyId, PrivateJwk, PublicJwk, SigningKey};

use super::{ModuleKind, Report, Settings, check};

pub(in crate::config) const D: &str = "ataccama.one.platform.deployments";
const KEY: &str = "ataccama.authentication.internal.jwt.generator.key";

/// A folder for files.
pub(in crate::config) struct Folder(TempDir);

impl Folder {
    pub(in crate::config) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(in crate::config) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(in crate::config) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        private(&path);
        path
    }

    fn check(&self, text: impl AsRef<[u8]>) -> Report {
        let file = self.write("application.properties", text);
        check(&[file], &[]).unwrap()
    }
}

#[cfg(unix)]
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
fn private(_: &Path) {}

pub(in crate::config) fn kid(key: &SigningKey) -> KeyId {
    KeyId::new(&key.fingerprint().to_string()).unwrap()
}

pub(in crate::config) fn own_line(key: &SigningKey) -> String {
    let jwk = PrivateJwk::write(key, &kid(key));
    format!("{KEY}={}\n", BASE64_STANDARD.encode(jwk.expose()))
}

fn content(key: &SigningKey) -> String {
    PublicJwk::write(key.verifying_key(), &kid(key))
}

/// The six lines of the seed for one deployment.
pub(in crate::config) fn deployment(name: &str, module: &str, key: &SigningKey) -> String {
    let jwt_key = format!("{D}.{name}.security.jwt-keys.key");
    format!(
        "{D}.{name}.module={module}\n{D}.{name}.environment=dev\n{jwt_key}.fingerprint={}\n\
         {jwt_key}.content={}\n{jwt_key}.is-revoked=false\n{D}.{name}.security.roles[0]=IMPERSONATION\n",
        kid(key),
        content(key),
    )
}

pub(in crate::config) fn key() -> SigningKey {
    SigningKey::generate().unwrap()
}

/// A file without a fault: its own key in line 1, `dpe-dev` in lines 2 to 7.
pub(in crate::config) fn good() -> String {
    own_line(&key()) + &deployment("dpe-dev", "dpe", &key())
}

/// Returns `true` for the finding that a build without a store in etcd has of a URL that leads there.
fn is_of_build(found: &Finding) -> bool {
    let key = found.key.as_deref();
    !cfg!(feature = "etcd") && found.code == Code::Cs0306 && key == Some("countersign.registry.url")
}

/// Checks a file and loads it; returns the codes of its errors, each once, in the file's order.
fn error_codes(text: impl AsRef<[u8]>) -> Vec<Code> {
    let folder = Folder::new();
    let file = folder.write("application.properties", text);
    let report = check(std::slice::from_ref(&file), &[]).unwrap();
    let errors = report.findings.iter();
    let errors = errors.filter(|found| found.severity == Severity::Error);
    let mut codes: Vec<_> = errors.map(|found| found.code).collect();
    codes.dedup();
    assert_eq!(load(&file).is_err(), !codes.is_empty(), "{codes:?}");
    codes
}

fn load(file: &Path) -> Result<Settings, super::LoadError> {
    Settings::load(file, &ModuleKind::Dpm, [], &[])
}

type Row = (Code, Severity, u32, u32);

fn row(finding: &Finding) -> Row {
    let (line, column) = match &finding.origin {
        Origin::File { line, column, .. } => (*line, *column),
        _ => (0, 0),
    };
    (finding.code, finding.severity, line, column)
}

fn rows(findings: &Findings) -> Vec<Row> {
    findings.iter().map(row).collect()
}

/// Checks a good file after `change`, without the findings that a good file has (none).
fn after(change: impl FnOnce(String) -> String) -> Vec<Row> {
    rows(&Folder::new().check(change(good())).findings)
}

/// Checks a good file with `lines` added, which start in line 8.
fn with(lines: &str) -> Vec<Row> {
    after(|text| text + lines)
}
