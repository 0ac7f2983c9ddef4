//! The `countersign` command: arguments in, an exit code out. Thin: the work is done below.
//!
//! stdout carries the answer, stderr everything else.

mod change;
mod check;
mod confirm;
mod demo;
mod deployment;
mod doctor;
mod engines;
mod explain;
mod home;
mod input;
mod jws;
mod key;
mod output;
mod pair;
mod refused;
mod render;
mod revoke;
mod rotate;
mod run;
mod runtime;
mod signals;
mod token;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use output::Exit;
use output::{Colour, Console, Format};

/// Two services that prove to each other who they are, on every gRPC call.
#[derive(Debug, Parser)]
#[command(
    name = "countersign",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = EXIT_CODES
)]
struct Arguments {
    #[command(flatten)]
    console: ConsoleArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct ConsoleArguments {
    /// How to write the answer
    #[arg(
        short,
        long,
        value_enum,
        default_value_t,
        global = true,
        value_name = "FORMAT"
    )]
    output: Format,
    /// When to use colours; `auto` also honours the variable `NO_COLOR`
    #[arg(long, value_enum, default_value_t, global = true, value_name = "WHEN")]
    color: Colour,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch two modules pair and reach READY, and refuse what they must
    Demo(demo::Arguments),
    /// Pair two modules: make their keys and let each trust the other
    Pair(pair::Arguments),
    /// Find every mistake in properties files before a start
    Check(check::Arguments),
    /// List, add and remove the modules that one file trusts
    #[command(subcommand)]
    Deployment(deployment::Command),
    /// Make, convert and name keys
    #[command(subcommand)]
    Key(key::Command),
    /// Issue, verify and explain tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Run the registry
    #[command(subcommand)]
    Dpm(run::DpmCommand),
    /// Run an engine
    #[command(subcommand)]
    Dpe(run::DpeCommand),
    /// Change a module's key while it runs, and refuse no call on the way
    #[command(subcommand)]
    Rotate(rotate::Command),
    /// Take a key back at once
    Revoke(revoke::Arguments),
    /// Ask the DPM for its engines
    #[command(subcommand)]
    Engines(engines::Command),
    /// Find the layer that keeps two modules from talking, and what mends it
    Doctor(doctor::Arguments),
    /// Verify a compact JWS against one key
    #[command(subcommand)]
    Jws(jws::Command),
    /// Explain a finding's code or a refusal's reason
    Explain(explain::Arguments),
}

const EXIT_CODES: &str = "\
Exit codes:
  0   done, or yes
  1   the answer is no: problems found, token refused
  2   the command was used wrongly
  3   a file or setting cannot be read
  4   refused by the peer
  5   the peer cannot be reached
  6   would overwrite something
  70  a bug in countersign
  130, 143  ended by SIGINT or SIGTERM before it was done";

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(output::report_bug));
    panic::catch_unwind(AssertUnwindSafe(run))
        .unwrap_or(Exit::Bug)
        .into()
}

fn run() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return output::usage(&error),
    };
    let console = Console::new(arguments.console.output, arguments.console.color);
    let answer = match arguments.command {
        Command::Pair(arguments) => pair::run(&arguments, &console),
        Command::Check(arguments) => check::run(&arguments, &console),
        Command::Deployment(command) => deployment::run(&command, &console),
        Command::Demo(arguments) => demo::run(&arguments, &console),
        Command::Token(command) => token::run(&command, &console),
        Command::Dpm(command) => run::run_dpm(&command, &console),
        Command::Dpe(command) => run::run_dpe(&command, &console),
        Command::Engines(command) => engines::run(&command, &console),
        Command::Doctor(arguments) => doctor::run(&arguments, &console),
        Command::Revoke(arguments) => revoke::run(&arguments, &console),
        Command::Rotate(command) => rotate::run(&command, &console),
        Command::Key(command) => key::run(command, &console),
        Command::Jws(command) => jws::run(&command, &console),
        Command::Explain(arguments) => explain::run(&arguments, &console),
    };
    answer.unwrap_or_else(|failure| console.fail(&failure))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                let help = sub.get_after_help().map(ToString::to_string);
                let shows = help.is_some_and(|help| help.contains(&format!("$ {path}")));
                assert!(
                    shows || sub.has_subcommands(),
                    "{path} has no example of itself"
                );
                check(sub, &path);
            }
        }
        check(&Arguments::command(), "countersign");
    }
}
