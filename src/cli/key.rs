//! `countersign key`: make, convert and name keys.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use zeroize::Zeroizing;

use super::input::{self, if_unnamed, unnamed};
use super::output::{Answer, Console, Exit, Kind, Refused};
use crate::admin::SettingsFile;
use crate::admin::write::{Privacy, place_of, write};
use crate::config::Home;
use crate::diagnostic::quote;
use crate::jose::{KeyError, KeyId, KeyMaterial, PrivateJwk, PublicJwk, SigningKey, VerifyingKey};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a new private key, as mkjwk writes it
    #[command(after_help = include_str!("help/key_gen.txt"))]
    Gen {
        #[command(flatten)]
        destination: Destination,
        /// Where its public half goes
        #[arg(long, value_name = "FILE")]
        public_out: Option<PathBuf>,
    },
    /// Convert a key of any form (JWK, base64 of it, PEM, DER) to a JWK
    #[command(after_help = include_str!("help/key_import.txt"))]
    Import {
        /// The key; `-` reads stdin
        file: PathBuf,
        #[command(flatten)]
        destination: Destination,
    },
    /// Convert a key of any form to another form
    #[command(after_help = include_str!("help/key_export.txt"))]
    Export {
        /// The key; `-` reads stdin
        file: PathBuf,
        /// The form to write
        #[arg(long, value_enum, value_name = "FORM")]
        to: Form,
        #[command(flatten)]
        destination: Destination,
    },
    /// Print the fingerprint and the RFC 7638 thumbprint of a key
    #[command(after_help = include_str!("help/key_fingerprint.txt"))]
    Fingerprint {
        /// The key, or the home or the properties file of a module for its own key; `-` reads
        /// stdin [default: `$COUNTERSIGN_HOME`, else this folder]
        #[arg(value_name = "FILE|DIR", required_unless_present_any = if_unnamed("home"))]
        file: Option<PathBuf>,
        #[arg(long, alias = "file", hide = true, conflicts_with = "file")]
        home: Option<PathBuf>,
    },
}

/// Where a key is written.
#[derive(Args, Debug)]
pub(super) struct Destination {
    /// The file to write, a private key with mode 0600 [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace existing files
    #[arg(long)]
    force: bool,
}

/// The forms a key is written in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Form {
    /// JWK, with the private part if the key has one
    Jwk,
    /// JWK of the public half, on one line: what `content` holds
    PublicJwk,
    /// Base64 of the private JWK: what `generator.key` holds
    Base64,
    /// PKCS#8 PEM, `PRIVATE KEY`
    PemPkcs8,
    /// SEC1 PEM, `EC PRIVATE KEY`
    PemSec1,
    /// Public PEM, `PUBLIC KEY`
    PemSpki,
    /// PKCS#8 DER
    DerPkcs8,
    /// SEC1 DER
    DerSec1,
    /// Public DER
    DerSpki,
}

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    match command {
        Command::Gen {
            destination,
            public_out,
        } => generate(destination, public_out.as_ref(), console),
        Command::Import { file, destination } => {
            let key = input::key(file)?;
            note_kid(&key, console);
            let form = match key {
                KeyMaterial::Private(..) => Form::Jwk,
                KeyMaterial::Public(..) => Form::PublicJwk,
            };
            destination.deliver(&encode(&key, form)?, console)
        }
        Command::Export {
            file,
            to,
            destination,
        } => destination.deliver(&encode(&input::key(file)?, *to)?, console),
        Command::Fingerprint { file, home } => {
            let given = file.iter().chain(home).map(PathBuf::as_path);
            let named = given.chain(unnamed()).next();
            let key = key_of(named.unwrap_or_else(|| Path::new("-")))?;
            note_kid(&key, console);
            show_names(key.verifying_key(), console)
        }
    }
}

/// Reads the key in `file`: the module's own, if that is a home or a properties file.
fn key_of(file: &Path) -> Result<KeyMaterial, Refused> {
    let is_settings = file.extension().is_some_and(|end| end == "properties");
    if !is_settings && !file.is_dir() {
        return input::key(file);
    }
    let settings = SettingsFile::read(&Home::new(file).file)?;
    let (key, key_id) = settings.checked.own.ok_or_else(|| {
        let message = format!("`{}` has no usable own key", settings.path.display());
        Refused::new(Kind::Unreadable, message).with_findings(settings.findings)
    })?;
    Ok(KeyMaterial::Private(key, Some(key_id)))
}

fn generate(destination: &Destination, public_out: Option<&PathBuf>, console: &Console) -> Answer {
    if let (Some(out), Some(public_out)) = (&destination.out, public_out)
        && place_of(out)? == place_of(public_out)?
    {
        let message = "`--out` and `--public-out` name the same file";
        return Err(Refused::new(Kind::Usage, message)
            .with_help("the private key and its public half each need a separate file"));
    }
    let outputs = destination.out.iter().chain(public_out);
    for path in outputs.filter(|_| !destination.force) {
        if path.symlink_metadata().is_ok() {
            return Err(Refused::exists(path));
        }
    }
    let key =
        SigningKey::generate().map_err(Refused::caused(Kind::Internal, "cannot make a key"))?;
    let public = key.verifying_key().clone();
    let private = encode(&KeyMaterial::Private(key, None), Form::Jwk)?;
    if destination.out.is_none() {
        refuse_terminal(&private)?;
    }
    if let Some(path) = public_out {
        let encoded = encode(&KeyMaterial::Public(public.clone(), None), Form::Jwk)?;
        encoded.write(path, destination.force, console)?;
    }
    destination.deliver(&private, console)?;
    match destination.out {
        Some(_) => show_names(&public, console),
        None => Ok(Exit::Done),
    }
}

/// A key in the requested form.
struct Encoded {
    bytes: Zeroizing<Vec<u8>>,
    privacy: Privacy,
}

impl Encoded {
    fn write(&self, path: &Path, force: bool, console: &Console) -> Answer {
        let old = fs::metadata(path).map_or(0, |about| about.mode() & 0o777);
        write(path, &self.bytes, self.privacy, force)?;
        let what = match self.privacy {
            Privacy::Public => "public".to_owned(),
            _ if old | 0o600 == 0o600 => "private, mode 0600".to_owned(),
            _ => {
                format!("private, mode 0600, tightened from {old:04o}: only its owner can read it")
            }
        };
        console.say(&format!("wrote `{}` ({what})", path.display()));
        Ok(Exit::Done)
    }
}

fn encode(material: &KeyMaterial, form: Form) -> Result<Encoded, Refused> {
    let public = material.verifying_key();
    let own = material.kid().cloned();
    let kid = own.unwrap_or_else(|| public.fingerprint().into());
    let mut privacy = Privacy::Public;
    let bytes = match (form, material) {
        (Form::PublicJwk, _) => line(&PublicJwk::write(public, &kid)),
        (Form::PemSpki, _) => line(&public.to_spki_pem()),
        (Form::DerSpki, _) => public.to_spki_der().to_vec(),
        (Form::Jwk, KeyMaterial::Public(..)) => line(&PublicJwk::write_pretty(public, &kid)),
        (form, KeyMaterial::Private(key, _)) => {
            privacy = Privacy::Owner;
            let written = encode_private(key, &kid, form);
            written.map_err(Refused::caused(Kind::Internal, "cannot write the key"))?
        }
        (_, KeyMaterial::Public(..)) => {
            let message = "this form needs a private key, and the file holds a public one";
            return Err(Refused::new(Kind::Usage, message)
                .with_help("its public forms are `--to public-jwk`, `pem-spki` and `der-spki`"));
        }
    };
    Ok(Encoded {
        bytes: bytes.into(),
        privacy,
    })
}

fn encode_private(key: &SigningKey, kid: &KeyId, form: Form) -> Result<Vec<u8>, KeyError> {
    Ok(match form {
        Form::DerPkcs8 => key.to_pkcs8_der().expose().clone(),
        Form::DerSec1 => key.to_sec1_der()?.expose().clone(),
        Form::Base64 => line(&Zeroizing::new(
            BASE64_STANDARD.encode(PrivateJwk::write(key, kid).expose()),
        )),
        Form::PemPkcs8 => line(key.to_pkcs8_pem()?.expose()),
        Form::PemSec1 => line(key.to_sec1_pem()?.expose()),
        Form::Jwk | Form::PublicJwk | Form::PemSpki | Form::DerSpki => {
            line(PrivateJwk::write_pretty(key, kid).expose())
        }
    })
}

/// Returns `text` with one line end after it.
fn line(text: &str) -> Vec<u8> {
    [text.trim_end().as_bytes(), b"\n"].concat()
}

impl Destination {
    /// Writes to the file, or to stdout if that is safe.
    fn deliver(&self, encoded: &Encoded, console: &Console) -> Answer {
        if let Some(path) = self.out.as_deref().filter(|path| !input::is_stdin(path)) {
            return encoded.write(path, self.force, console);
        }
        refuse_terminal(encoded)?;
        console.answer(&*encoded.bytes)
    }
}

fn refuse_terminal(encoded: &Encoded) -> Result<(), Refused> {
    let what = match (encoded.privacy, str::from_utf8(&encoded.bytes)) {
        _ if !Console::answer_is_seen() => return Ok(()),
        (Privacy::Owner, _) => "a private key",
        (_, Err(_)) => "DER",
        _ => return Ok(()),
    };
    let message = format!("{what} is not shown on a terminal");
    Err(Refused::new(Kind::Usage, message).with_help("use `--out FILE`, or send it through a pipe"))
}

fn show_names(key: &VerifyingKey, console: &Console) -> Answer {
    let (fingerprint, thumbprint) = (key.fingerprint().to_string(), key.thumbprint());
    let text = format!(
        "fingerprint (SHA-256 of the public key; mkjwk's \"SHA-256\", a token's kid)  {fingerprint}\n\
         RFC 7638 thumbprint (what other JOSE tools print)                          {thumbprint}\n"
    );
    let names = json!({ "fingerprint": fingerprint, "rfc7638": thumbprint });
    console.reply(text, &names)
}

/// Notes a `kid` that is not the fingerprint.
pub(super) fn note_kid(material: &KeyMaterial, console: &Console) {
    let key = material.verifying_key();
    let kid = material.kid().map(KeyId::as_str);
    if let Some(kid) = kid.filter(|kid| *kid != key.fingerprint().to_string()) {
        let what = if kid == key.thumbprint() {
            "its RFC 7638 thumbprint, "
        } else {
            ""
        };
        let shown = quote(kid);
        console.note(&format!(
            "the key's `kid` is {what}not its fingerprint: {shown}"
        ));
    }
}
