//! Which method asks for what. A method without a rule is not served.

mod path;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::server::NamedService;

use crate::identity::{DeploymentName, ModuleType, Role, ServiceIdentity};
use crate::token::{Reason, Refusal};

pub use path::RuleError;

/// What a method asks of its caller.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) everyone: bool,
    asks: Asks,
    pub(super) own_module: bool,
}

#[derive(Clone)]
enum Asks {
    Nothing,
    AnyRole(Vec<Role>),
    Deployment(DeploymentName),
    Module(ModuleType),
    When(Arc<Predicate>),
}

type Predicate = dyn Fn(&ServiceIdentity) -> bool + Send + Sync;

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("any identity"),
            Self::AnyRole(roles) => write!(f, "one of the roles {roles:?}"),
            Self::Deployment(name) => write!(f, "deployment `{name}`"),
            Self::Module(module) => write!(f, "module `{module}`"),
            Self::When(_) => f.write_str("a condition"),
        }
    }
}

impl Rule {
    /// Everyone may call, without a token.
    ///
    /// Probes carry no token: `grpc.health.v1.Health/Check` and `Watch` need this rule. `serve` adds it.
    pub fn everyone() -> Self {
        Self {
            everyone: true,
            ..Self::any_identity()
        }
    }

    /// Any trusted deployment may call.
    pub fn any_identity() -> Self {
        Self::asking(Asks::Nothing)
    }

    /// A trusted deployment with `role` may call.
    pub fn role(role: Role) -> Self {
        Self::any_role([role])
    }

    /// A trusted deployment with one of `roles` may call; without any, no deployment may.
    pub fn any_role(roles: impl IntoIterator<Item = Role>) -> Self {
        Self::asking(Asks::AnyRole(roles.into_iter().collect()))
    }

    /// The trusted deployment that is called `name` may call.
    pub fn deployment(name: DeploymentName) -> Self {
        Self::asking(Asks::Deployment(name))
    }

    /// A trusted deployment of the module type `module` may call.
    pub fn module(module: ModuleType) -> Self {
        Self::asking(Asks::Module(module))
    }

    /// A trusted deployment may call where `condition` is true of its identity. A panic in it refuses
    /// the call.
    pub fn when(condition: impl Fn(&ServiceIdentity) -> bool + Send + Sync + 'static) -> Self {
        Self::asking(Asks::When(Arc::new(condition)))
    }

    /// Also the module itself may call, over loopback, with a token that it issued to itself.
    #[must_use]
    pub fn or_own_module(self) -> Self {
        Self {
            own_module: true,
            ..self
        }
    }

    fn asking(asks: Asks) -> Self {
        Self {
            everyone: false,
            asks,
            own_module: false,
        }
    }

    /// Checks the caller of `path`.
    pub(super) fn check(&self, identity: &ServiceIdentity) -> Result<(), Refusal> {
        let lacking = match &self.asks {
            Asks::Nothing => None,
            Asks::AnyRole(roles) => {
                let has_one = roles.iter().any(|role| identity.roles().contains(role));
                let names: Vec<_> = roles.iter().map(|role| format!("`{role}`")).collect();
                (!has_one).then(|| match names.as_slice() {
                    [role] => format!("lacks the role {role}"),
                    several => format!("lacks each of the roles {}", several.join(", ")),
                })
            }
            Asks::Deployment(name) => {
                (identity.id() != name.as_str()).then(|| format!("is not deployment `{name}`"))
            }
            Asks::Module(module) => {
                (identity.module() != module).then(|| format!("is not of the module `{module}`"))
            }
            // Where it panics, the call is refused like one whose handler does.
            Asks::When(condition) => (!condition(identity))
                .then(|| "does not meet the condition of the method's rule".to_owned()),
        };
        lacking.map_or(Ok(()), |lacking| {
            let detail = format!("{identity} {lacking}");
            Err(Refusal::new(Reason::RoleMissing, detail))
        })
    }
}

/// The rules of a server: default deny.
///
/// A rule names a method, `/package.Service/Method`, or all methods of a service,
/// `/package.Service/*`; the method's own rule wins. To a verified caller a method without a rule
/// answers `UNIMPLEMENTED`, as if it were not served; to anyone else `UNAUTHENTICATED`.
#[derive(Clone, Debug, Default)]
pub struct MethodRules {
    methods: HashMap<String, Rule>,
    services: HashMap<String, Rule>,
    /// The paths of the methods that descriptors name, if there are any.
    described: Option<BTreeSet<String>>,
}

impl MethodRules {
    /// Starts with no rule: nothing may be called.
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// Starts with no rule, and accepts rules only for the methods that `sets` describe. Each is an
    /// encoded `FileDescriptorSet`.
    ///
    /// # Errors
    ///
    /// When one is not a `FileDescriptorSet`.
    pub fn described(sets: &[&[u8]]) -> Result<Self, RuleError> {
        Ok(Self {
            described: Some(path::described(sets)?),
            ..Self::default()
        })
    }

    /// Adds the rule for `path`: a method, or `/package.Service/*`.
    ///
    /// # Errors
    ///
    /// When no call can have this path, no descriptor has it where there are some, or it has a rule
    /// already.
    pub fn allow(self, path: &str, rule: Rule) -> Result<Self, RuleError> {
        let (service, method) = path::parts(path)?;
        path::find(self.described.as_ref(), path, service, method)?;
        let taken = match method {
            "*" => self.services.contains_key(service),
            _ => self.methods.contains_key(path),
        };
        if taken {
            return Err(RuleError::Twice(path.to_owned()));
        }
        Ok(self.with(service, method, rule))
    }

    /// Adds the rule for all methods of the service that `S` serves, such as
    /// `GreeterServiceServer<Greeter>`; it replaces one that was there.
    #[must_use]
    pub fn allow_service<S: NamedService>(self, rule: Rule) -> Self {
        self.with(S::NAME, "*", rule)
    }

    /// Adds the rule for a route that is not gRPC, such as `/metrics`.
    ///
    /// # Errors
    ///
    /// When `path` is not absolute, has a `*` or a query, or has a rule already.
    pub fn allow_http(mut self, path: &str, rule: Rule) -> Result<Self, RuleError> {
        path::check_route(path)?;
        match self.methods.insert(path.to_owned(), rule) {
            Some(_) => Err(RuleError::Twice(path.to_owned())),
            None => Ok(self),
        }
    }

    /// Adds the rule for `method`, or for all with `*`, of `service`.
    pub(crate) fn with(mut self, service: &str, method: &str, rule: Rule) -> Self {
        match method {
            "*" => self.services.insert(service.to_owned(), rule),
            _ => self.methods.insert(format!("/{service}/{method}"), rule),
        };
        self
    }

    /// Returns the rule for `path`, the whole `:path` of a call.
    ///
    /// A path with a query has no rule: routers ignore the query, so a service's rule must not
    /// replace the rule of the method that they would call.
    pub(super) fn find(&self, path: &str) -> Option<&Rule> {
        if path.contains('?') {
            return None;
        }
        self.methods.get(path).or_else(|| {
            let (service, _) = path.strip_prefix('/')?.rsplit_once('/')?;
            self.services.get(service)
        })
    }

    /// Returns the services that have rules.
    pub(crate) fn services(&self) -> Vec<String> {
        let methods = self.methods.keys();
        let of_methods = methods.filter_map(|path| Some(path::parts(path).ok()?.0));
        let all = of_methods.chain(self.services.keys().map(String::as_str));
        let sorted: BTreeSet<_> = all.map(str::to_owned).collect();
        sorted.into_iter().collect()
    }

    /// Adds the rules of `other`.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.methods.extend(other.methods);
        self.services.extend(other.services);
        self
    }

    /// Returns the methods that have a rule of their own.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(String::as_str)
    }
}

/// The methods without a rule that each caller was logged for.
#[derive(Debug, Default)]
pub(super) struct Misses(Mutex<HashMap<String, HashSet<String>>>);

/// How many of them are remembered of one caller.
const MAX_REMEMBERED: usize = 16;

impl Misses {
    /// Returns `true` once for each path of a caller, so that its missing rule is logged once.
    pub(super) fn is_first(&self, caller: &str, path: &str) -> bool {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = callers.entry(caller.to_owned()).or_default();
        paths.len() < MAX_REMEMBERED && paths.insert(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ModuleType, Roles};

    #[test]
    fn method_rule_wins_over_its_services() {
        let role = Role::new("ADMIN").unwrap();
        let rules = MethodRules::deny_all()
            .allow("/a.B/*", Rule::any_identity())
            .unwrap()
            .allow("/a.B/Delete", Rule::role(role.clone()))
            .unwrap();
        let found = |path| format!("{:?}", rules.find(path).unwrap());

        assert_eq!(found("/a.B/Get"), format!("{:?}", Rule::any_identity()));
        assert_eq!(found("/a.B/Delete"), format!("{:?}", Rule::role(role)));
    }

    #[test]
    fn near_miss_of_a_path_finds_no_rule() {
        let rules = MethodRules::deny_all()
            .allow("/a.B/Get", Rule::everyone())
            .unwrap();

        for path in [
            "/a.B/get",
            "//a.B/Get",
            "/a.B/Get/",
            "/a.B/../a.B/Get",
            "/a.B/%47et",
            "*",
            "",
        ] {
            assert!(rules.find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn path_with_a_query_has_no_rule_of_its_service() {
        let rules = MethodRules::deny_all()
            .allow("/a.B/*", Rule::everyone())
            .unwrap()
            .allow("/a.B/Get", Rule::any_identity())
            .unwrap();

        for path in ["/a.B/Get?", "/a.B/Get?x", "/a.B/?Get", "/a.B/Get?/../Get"] {
            assert!(rules.find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn role_is_compared_without_case() {
        let rule = Rule::role(Role::new("IMPERSONATION").unwrap());
        let module = ModuleType::new("dpe").unwrap();
        let lower = Roles::from_iter([Role::new("impersonation").unwrap()]);

        assert!(
            rule.check(&ServiceIdentity::new(module.clone(), "dpe-dev", lower))
                .is_ok()
        );
        let none = ServiceIdentity::new(module, "dpe-dev", Roles::default());
        assert_eq!(rule.check(&none).unwrap_err().reason, Reason::RoleMissing);
    }

    #[test]
    fn rule_that_can_never_match_is_an_error() {
        for path in [
            "a.B/Get",
            "/a.B",
            "/*",
            "/",
            "",
            "/a.*/Get",
            "/*/Get",
            "/a.B/G*",
            "/a.B/Get/",
            "//a.B/Get",
            "/a.B/Get?x",
            "/a.B/ Get",
            "/a.B//Get",
            "/a.B/*/Get",
        ] {
            let error = MethodRules::deny_all().allow(path, Rule::any_identity());
            assert_eq!(error.unwrap_err(), RuleError::Method(path.to_owned()));
        }
        for path in ["metrics", "/me*", "/m?x", ""] {
            let error = MethodRules::deny_all().allow_http(path, Rule::everyone());
            assert_eq!(error.unwrap_err(), RuleError::Route(path.to_owned()));
        }
        let rules = MethodRules::deny_all().allow("/a.B/Get", Rule::everyone());
        let twice = rules.unwrap().allow("/a.B/Get", Rule::any_identity());
        assert_eq!(twice.unwrap_err(), RuleError::Twice("/a.B/Get".to_owned()));
    }

    #[test]
    fn method_that_no_descriptor_has_is_named_with_the_nearest() {
        let rules = MethodRules::described(&[crate::proto::FILE_DESCRIPTOR_SET]).unwrap();
        let service = "/countersign.identity.v1.IdentityService";

        let typo = rules
            .clone()
            .allow(&format!("{service}/whoami"), Rule::everyone());

        let text = typo.unwrap_err().to_string();
        assert!(
            text.contains(&format!("did you mean `{service}/WhoAmI`?")),
            "{text}"
        );
        for method in ["WhoAmI", "*"] {
            let path = format!("{service}/{method}");
            assert!(
                rules.clone().allow(&path, Rule::everyone()).is_ok(),
                "{path}"
            );
        }
        assert_eq!(
            MethodRules::described(&[b"no"]).unwrap_err(),
            RuleError::Descriptor
        );
    }

    #[test]
    fn rules_by_deployment_module_roles_and_predicate_decide() {
        let role = |name| Role::new(name).unwrap();
        let module = |name| ModuleType::new(name).unwrap();
        let name = |name| DeploymentName::new(name).unwrap();
        let caller = ServiceIdentity::new(module("dpe"), "dpe-dev", Roles::from_iter([role("A")]));

        for (rule, allowed) in [
            (Rule::any_identity(), true),
            (Rule::any_role([role("B"), role("A")]), true),
            (Rule::any_role([role("B"), role("C")]), false),
            (Rule::any_role([]), false),
            (Rule::deployment(name("dpe-dev")), true),
            (Rule::deployment(name("ledger-dev")), false),
            (Rule::module(module("dpe")), true),
            (Rule::module(module("dpm")), false),
            (Rule::when(|caller| caller.id().starts_with("dpe")), true),
            (Rule::when(|caller| caller.id().is_empty()), false),
        ] {
            let judged = rule.check(&caller);
            assert_eq!(judged.is_ok(), allowed, "{rule:?}: {judged:?}");
        }
    }

    #[test]
    fn one_callers_unknown_paths_do_not_silence_anothers() {
        let misses = Misses::default();

        for number in 0..100 {
            misses.is_first("noisy", &format!("/a.B/{number}"));
        }

        assert!(!misses.is_first("noisy", "/a.B/new"));
        assert!(misses.is_first("other", "/a.B/new"));
        assert!(!misses.is_first("other", "/a.B/new"));
    }
}
