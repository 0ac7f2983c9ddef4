//! The block that one machine gives to the other to pair them, or to change a key, if neither has
//! the other's file: public data only, and words to compare by voice.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use sha2::{Digest as _, Sha256};

use super::error::{Kind, Refused};
use crate::config::is_loopback;
use crate::engine::check_host;
use crate::grpc::Target;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{Fingerprint, KeyId, PublicJwk, VerifyingKey, published};

const BEGIN: &str = "-----BEGIN COUNTERSIGN HAND-OVER-----";
const END: &str = "-----END COUNTERSIGN HAND-OVER-----";

const NOT_ONE: &str = "it is not one block from `BEGIN COUNTERSIGN HAND-OVER` to `END \
                       COUNTERSIGN HAND-OVER`";

/// The line that exists only if the module uses TLS.
const TLS: &str = "tls-fingerprint";

/// The line that exists only if other hosts reach the module.
const ADDRESS: &str = "address";

/// The longest block that is read, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;

/// How many bytes of the hash the words encode: a different key that has the
/// same words takes 2^64 tries.
const WORDS: usize = 8;

/// One word for each value of a byte, in order; short, common, and unlike each other.
const LIST: &str = include_str!("handover/words.txt");

/// A module's public key and name, for the other machine.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// What the key is for.
    pub purpose: Purpose,
    /// The module's name.
    pub deployment: DeploymentName,
    /// The `kid` of its tokens.
    pub key_id: KeyId,
    /// Its public key.
    pub key: VerifyingKey,
}

/// The purpose of the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// To trust the module.
    Pair(Introduction),
    /// To trust the key beside the one that signs now.
    Rotate {
        /// The one that signs now.
        signs: Fingerprint,
    },
    /// To trust the key in place of all that the module had before: they are lost or leaked. None
    /// of them vouches for it, the words alone do.
    Replace,
}

/// What else to know about a module to trust it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Introduction {
    /// Its type.
    pub module: ModuleType,
    /// Its environment.
    pub environment: Environment,
    /// The role that it gets.
    pub role: Role,
    /// The fingerprint of its TLS certificate's key, if it uses TLS.
    pub tls: Option<Fingerprint>,
    /// Where others reach it; `None` if only its own host does.
    pub address: Option<Target>,
}

impl Introduction {
    /// Returns `true` if other hosts reach it, as far as names show.
    pub fn is_remote(&self) -> bool {
        let target = self.address.as_ref();
        target.is_some_and(|target| !is_loopback(target.host()))
    }
}

impl HandOver {
    /// Writes the block.
    pub fn block(&self) -> String {
        let lines = self.lines();
        let checksum = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&lines));
        format!("{BEGIN}\n{lines}checksum: {checksum}\n{END}\n")
    }

    /// Returns its words: 64 bits of the hash of all its lines.
    pub fn words(&self) -> String {
        words(Sha256::digest(self.lines()).iter().take(WORDS))
    }

    /// Returns `true` if `heard` are its words, whatever is between them.
    pub fn has_words(&self, heard: &str) -> bool {
        let parts = heard.split(|c: char| !c.is_ascii_alphabetic());
        let heard_words = parts.filter(|word| !word.is_empty());
        let heard_lower = heard_words.map(str::to_ascii_lowercase);
        heard_lower.eq(self.words().split(' '))
    }

    fn lines(&self) -> String {
        let (deployment, key_id) = (&self.deployment, &self.key_id);
        let key = PublicJwk::write(&self.key, key_id);
        let purpose = match &self.purpose {
            Purpose::Pair(of) => {
                let (module, environment, role) = (&of.module, &of.environment, &of.role);
                let tls = of.tls.map(|tls| format!("\n{TLS}: {tls}"));
                let at = of.address.as_ref().map(|at| format!("\n{ADDRESS}: {at}"));
                let more = [tls, at].into_iter().flatten().collect::<String>();
                format!("pair\nmodule: {module}\nenvironment: {environment}\nrole: {role}{more}")
            }
            Purpose::Rotate { signs } => format!("rotate\nsigns: {signs}"),
            Purpose::Replace => "replace".to_owned(),
        };
        format!(
            "version: 1\npurpose: {purpose}\ndeployment: {deployment}\nfingerprint: {key_id}\n\
             key: {key}\n"
        )
    }

    /// Reads a block; only blank lines may surround it.
    ///
    /// # Errors
    ///
    /// When it is not a block exactly as this program writes it.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        if text.len() > MAX_BYTES {
            return Err(refused("it is larger than 16 KiB"));
        }
        let block = text.replace("\r\n", "\n");
        let opened = block.trim().strip_prefix(BEGIN);
        let lines = match opened.and_then(|text| text.strip_suffix(END)) {
            Some(inner) if inner.starts_with('\n') && !inner.contains(BEGIN) => Lines(inner),
            _ => return Err(refused(NOT_ONE)),
        };
        if lines.text("version")? != "1" {
            let what = "it is of a version that this countersign does not know";
            return Err(refused(what));
        }
        let purpose = match lines.text("purpose")? {
            "pair" => Purpose::Pair(Introduction {
                module: lines.value("module", ModuleType::new)?,
                environment: lines.value("environment", Environment::new)?,
                role: lines.value("role", Role::new)?,
                tls: match lines.find(TLS) {
                    Some(_) => Some(lines.value(TLS, str::parse)?),
                    None => None,
                },
                address: match lines.find(ADDRESS) {
                    Some(_) => Some(lines.value(ADDRESS, target)?),
                    None => None,
                },
            }),
            "rotate" => Purpose::Rotate {
                signs: lines.value("signs", str::parse)?,
            },
            "replace" => Purpose::Replace,
            _ => return Err(refused("the value of `purpose` cannot be used")),
        };
        let key_id = lines.value("fingerprint", KeyId::new)?;
        let jwk = lines.value("key", PublicJwk::parse)?;
        if jwk.kid.as_ref() != Some(&key_id) {
            return Err(refused("the fingerprint is not that of the key"));
        }
        if published(jwk.key.fingerprint()) {
            let what = "its key is printed in a public guide and protects nothing";
            return Err(refused(what));
        }
        let read = Self {
            purpose,
            deployment: lines.value("deployment", DeploymentName::new)?,
            key_id,
            key: jwk.key,
        };
        // What was read must be all that there is: nothing is left to be read in another way.
        if read.block().trim_end() != block.trim() {
            let what = "its checksum does not match: it was cut or altered on the way";
            return Err(refused(what));
        }
        Ok(read)
    }
}

/// Returns one word for each of `bytes`.
fn words<'a>(bytes: impl Iterator<Item = &'a u8>) -> String {
    let words = bytes.filter_map(|byte| LIST.lines().nth(usize::from(*byte)));
    words.collect::<Vec<_>>().join(" ")
}

/// Reads `host` or `host:port`; an IPv6 address with a port is in brackets.
pub(super) fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, Some(port.parse().ok().filter(|port| *port != 0)?))
        }
        _ => (text, None),
    };
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = inner.unwrap_or(host);
    check_host(host).ok().map(|()| (host, port))
}

/// Reads `host:port`.
fn target(text: &str) -> Result<Target, ()> {
    match host_and_port(text) {
        Some((host, Some(port))) => Ok(Target::new(host, port)),
        _ => Err(()),
    }
}

fn refused(why: impl Into<String>) -> Refused {
    Refused::new(Kind::Conflict, why)
}

/// The lines of a block: a name and a value each.
struct Lines<'a>(&'a str);

impl<'a> Lines<'a> {
    fn find(&self, name: &str) -> Option<&'a str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self, name: &str) -> Result<&'a str, Refused> {
        self.find(name)
            .ok_or_else(|| refused(format!("the line `{name}: …` is missing")))
    }

    fn value<T, E>(&self, name: &str, read: fn(&str) -> Result<T, E>) -> Result<T, Refused> {
        read(self.text(name)?)
            .map_err(|_error| refused(format!("the value of `{name}` cannot be used")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::SigningKey;

    fn pair() -> HandOver {
        let key = SigningKey::generate().unwrap();
        HandOver {
            purpose: Purpose::Pair(Introduction {
                module: ModuleType::new("dpe").unwrap(),
                environment: Environment::new("dev").unwrap(),
                role: Role::impersonation(),
                tls: None,
                address: None,
            }),
            deployment: DeploymentName::new("dpe-dev").unwrap(),
            key_id: KeyId::from(key.fingerprint()),
            key: key.verifying_key().clone(),
        }
    }

    fn rotate() -> HandOver {
        let signs = SigningKey::generate().unwrap().fingerprint();
        HandOver {
            purpose: Purpose::Rotate { signs },
            ..pair()
        }
    }

    fn replace() -> HandOver {
        HandOver {
            purpose: Purpose::Replace,
            ..pair()
        }
    }

    fn with_tls() -> HandOver {
        let tls = Some(SigningKey::generate().unwrap().fingerprint());
        let mut pair = pair();
        if let Purpose::Pair(introduction) = &mut pair.purpose {
            introduction.tls = tls;
            introduction.address = Some(Target::new("2001:db8::1", 8531));
        }
        pair
    }

    #[test]
    fn what_is_written_is_read_back() {
        for written in [pair(), with_tls(), rotate(), replace()] {
            let block = written.block();
            let on_its_way = format!("\n{}\n\n", block.replace('\n', "\r\n"));

            let read = HandOver::parse(&on_its_way).unwrap();

            assert_eq!(read.block(), block);
            assert_eq!(read.purpose, written.purpose);
            assert_eq!(read.words().split(' ').count(), 8);
            assert!(written.has_words(&read.words().to_uppercase().replace(' ', " - ")));
            assert!(!written.has_words(&pair().words()));
        }
    }

    #[test]
    fn a_block_with_any_byte_altered_or_cut_is_refused() {
        for written in [pair(), with_tls(), rotate(), replace()] {
            let block = written.block();
            let block = block.trim_end();
            for at in 0..block.len() {
                let (start, rest) = block.split_at(at);
                assert!(HandOver::parse(start).is_err(), "cut at {at}");
                let skipped: String = rest.chars().skip(1).collect();
                for other in ["", "x", "\u{1b}", "\n", "é"] {
                    let altered = format!("{start}{other}{skipped}");
                    assert!(
                        altered == block || HandOver::parse(&altered).is_err(),
                        "{altered}"
                    );
                }
            }
        }
    }

    #[test]
    fn everything_that_is_no_block_is_refused_with_its_reason() {
        let block = pair().block();
        let huge = format!("{block}{}", "\n".repeat(MAX_BYTES));
        for (text, reason) in [
            (String::new(), "it is not one block"),
            (huge, "it is larger than 16 KiB"),
            (format!("{block}{block}"), "it is not one block"),
            (
                block.replace("version: 1", "version: 2"),
                "it is of a version",
            ),
            (
                block.replace("deployment: ", "name: "),
                "the line `deployment",
            ),
            (
                block.replace("dpe-dev", "\u{1b}[2Jdpe"),
                "the value of `deployment`",
            ),
            (
                block.replace("dpe-dev", "dpe-tst"),
                "its checksum does not match",
            ),
            (
                block.replace("fingerprint: ", "fingerprint: x"),
                "the fingerprint is not that",
            ),
        ] {
            let shown = HandOver::parse(&text).unwrap_err().to_string();
            assert!(shown.starts_with(reason), "{shown}");
        }
    }

    #[test]
    fn every_byte_has_a_word_of_its_own() {
        let list: Vec<_> = LIST.lines().collect();
        assert_eq!(list.len(), 256);
        assert!(list.windows(2).all(|pair| pair[0] < pair[1]));
        for word in list {
            let is_short = (4..=8).contains(&word.len());
            assert!(
                is_short && word.bytes().all(|byte| byte.is_ascii_lowercase()),
                "{word}"
            );
        }
        assert_eq!(words([0, 255].iter()), "acorn zebra");
    }
}
