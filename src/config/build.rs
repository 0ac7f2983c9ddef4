//! From settings to a module, its connections and its server.

use super::settings::Settings;
use crate::grpc::tls::{ClientTlsOptions, TlsError};
use crate::grpc::{
    ConnectionOptions, Module, ModuleBuilder, ModuleError, Reflection, ServerOptions, Tokens,
};
use crate::registry::AddressBook;

impl Settings {
    /// Makes the module of these settings.
    ///
    /// # Errors
    ///
    /// When the deployments are ambiguous, which loading has ruled out.
    pub fn module(&self) -> Result<Module, ModuleError> {
        let tokens = if self.options.server.authenticate {
            Tokens::Required
        } else {
            Tokens::OptionalOnLoopback
        };
        let start = Module::builder(self.own.clone())
            .dangerous_tokens(tokens)
            .policy(self.options.policy)
            .proof_mode(self.options.proof)
            .replay(self.options.replay)
            .impersonation_role(self.options.impersonation_role.clone());
        let trusting = self.deployments.iter().cloned();
        trusting.fold(start, ModuleBuilder::trust).build()
    }

    /// Returns where the engines of each deployment may be dialled back, for a registry and the
    /// [`Reloader`](super::Reloader) that follows the files.
    pub fn address_book(&self) -> AddressBook {
        AddressBook::new(self.options.addresses.clone())
    }

    /// Returns how `module` connects to others: with TLS by `tls`, where it is on.
    ///
    /// # Errors
    ///
    /// When a PEM file cannot be used.
    pub fn connection(
        &self,
        module: &Module,
        tls: Option<&ClientTlsOptions>,
    ) -> Result<ConnectionOptions, TlsError> {
        let made = tls.map(|options| module.client_tls(options.clone()));
        Ok(ConnectionOptions {
            allow_plaintext: self.options.client.allow_plaintext,
            tls: made.transpose()?,
            ..ConnectionOptions::default()
        })
    }

    /// Returns how `module` connects to its own server.
    ///
    /// # Errors
    ///
    /// When a PEM file cannot be used.
    pub fn own_connection(&self, module: &Module) -> Result<ConnectionOptions, TlsError> {
        let server = self.options.server.tls.clone();
        let tls = server.map(|server| module.own_module_tls(server));
        Ok(ConnectionOptions {
            tls: tls.transpose()?,
            ..ConnectionOptions::default()
        })
    }

    pub(super) fn server_options(&self, module: &Module) -> Result<ServerOptions, TlsError> {
        let tls = self.options.server.tls.clone();
        Ok(ServerOptions {
            tls: tls.map(|options| module.server_tls(options)).transpose()?,
            reflection: self.reflection(),
            ..self.options.server.options.clone()
        })
    }

    fn reflection(&self) -> Reflection {
        if self.options.server.address.is_loopback() {
            Reflection::On
        } else {
            Reflection::Off
        }
    }
}
