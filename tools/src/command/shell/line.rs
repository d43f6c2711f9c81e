//! What is typed into the shell: its words, and what they ask for.
//!
//! Off the data path.
//! Invariant: a line is one command or an error that says how the command is written.

use std::borrow::Cow;

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nothing was typed.
    Nothing,
    Set {
        key: String,
        value: String,
    },
    Get {
        key: String,
    },
    Delete {
        key: String,
    },
    /// Delete every key; `sure`: without asking.
    Clean {
        sure: bool,
    },
    AddServer {
        node: u64,
        address: String,
    },
    RemoveServer {
        node: u64,
    },
    Status,
    /// Of one command, or of all.
    Help {
        command: Option<String>,
    },
    Exit,
}

/// A command: its name, how it is written, what it does.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) usage: &'static str,
    pub(crate) text: &'static str,
}

/// All commands, in the order of the help.
pub(crate) const COMMANDS: [Entry; 9] = [
    Entry { name: "set", usage: "set <key> <value>", text: "sets a key; words behind the key are one value" },
    Entry { name: "get", usage: "get <key>", text: "prints the value of a key" },
    Entry { name: "delete", usage: "delete <key>", text: "removes a key" },
    Entry { name: "clean", usage: "clean [--yes]", text: "removes every key, after a question unless --yes is said" },
    Entry {
        name: "add-server",
        usage: "add-server <id> <address> [<http address>]",
        text: "lets a node join that `ringraft join` has made; where it serves HTTP is its own setting",
    },
    Entry { name: "remove-server", usage: "remove-server <id>", text: "moves everything off a node and removes it" },
    Entry { name: "status", usage: "status", text: "shows every replica" },
    Entry { name: "help", usage: "help [<command>]", text: "shows this" },
    Entry { name: "exit", usage: "exit", text: "ends the shell; so do quit and Ctrl-D" },
];

/// Reads a line.
///
/// # Errors
/// How the command is written, or that there is none of that name.
pub(crate) fn parse(line: &str) -> Result<Wish, String> {
    let line = line.trim();
    if line.starts_with('#') {
        return Ok(Wish::Nothing);
    }
    let words = shlex::split(line).ok_or("a quotation mark has no partner")?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number =
        |word: &str| word.parse::<u64>().ok().filter(|number| *number > 0).ok_or("a node's id is a number from 1");
    let wish = match words.as_slice() {
        [] => Wish::Nothing,
        ["set", key, first, rest @ ..] if !key.is_empty() => {
            let value = rest.iter().fold(Cow::Borrowed(*first), |value, word| Cow::Owned(format!("{value} {word}")));
            Wish::Set { key: (*key).to_owned(), value: value.into_owned() }
        }
        ["get", key] if !key.is_empty() => Wish::Get { key: (*key).to_owned() },
        ["delete", key] if !key.is_empty() => Wish::Delete { key: (*key).to_owned() },
        ["clean"] => Wish::Clean { sure: false },
        ["clean", "--yes" | "-y"] => Wish::Clean { sure: true },
        ["add-server", node, address] | ["add-server", node, address, _] => {
            Wish::AddServer { node: number(node)?, address: (*address).to_owned() }
        }
        ["remove-server", node] => Wish::RemoveServer { node: number(node)? },
        ["status"] => Wish::Status,
        ["help"] => Wish::Help { command: None },
        ["help", command] => Wish::Help { command: Some((*command).to_owned()) },
        ["exit" | "quit"] => Wish::Exit,
        [name, ..] => return Err(usage_of(name)),
    };
    Ok(wish)
}

fn usage_of(name: &str) -> String {
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => format!("it is written: {}", command.usage),
        None => format!("there is no command `{name}`; `help` shows all"),
    }
}

/// The help of one command or of all.
pub(crate) fn help(command: Option<&str>) -> Result<String, String> {
    let lines = COMMANDS.iter().filter(|entry| command.is_none_or(|name| name == entry.name));
    let text: String = lines.map(|entry| format!("{:<44}{}\n", entry.usage, entry.text)).collect();
    if text.is_empty() { Err(usage_of(command.unwrap_or_default())) } else { Ok(text) }
}

/// Commands that begin with what is typed so far.
pub(crate) fn completions(typed: &str) -> Vec<&'static str> {
    COMMANDS.iter().map(|command| command.name).filter(|name| name.starts_with(typed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands() {
        let key = || "k".to_owned();
        let table = [
            ("", Wish::Nothing),
            ("  # a comment", Wish::Nothing),
            ("set k v", Wish::Set { key: key(), value: "v".to_owned() }),
            ("set k hello world", Wish::Set { key: key(), value: "hello world".to_owned() }),
            ("set 'k' \"a  b\"", Wish::Set { key: key(), value: "a  b".to_owned() }),
            ("set k ''", Wish::Set { key: key(), value: String::new() }),
            (" get k ", Wish::Get { key: key() }),
            ("delete k", Wish::Delete { key: key() }),
            ("clean", Wish::Clean { sure: false }),
            ("clean --yes", Wish::Clean { sure: true }),
            ("add-server 4 10.0.0.4:7100", Wish::AddServer { node: 4, address: "10.0.0.4:7100".to_owned() }),
            (
                "add-server 4 localhost:9004 localhost:8004",
                Wish::AddServer { node: 4, address: "localhost:9004".to_owned() },
            ),
            ("remove-server 4", Wish::RemoveServer { node: 4 }),
            ("status", Wish::Status),
            ("help", Wish::Help { command: None }),
            ("quit", Wish::Exit),
            ("exit", Wish::Exit),
        ];
        for (line, wish) in table {
            assert_eq!(parse(line), Ok(wish), "{line}");
        }
    }

    #[test]
    fn mistakes_are_told_with_how_it_is_written() {
        for (line, says) in [
            ("set k", "set <key> <value>"),
            ("get", "get <key>"),
            ("get a b", "get <key>"),
            ("get ''", "get <key>"),
            ("remove-server x", "a number from 1"),
            ("add-server 0 a:1", "a number from 1"),
            ("clean all", "clean [--yes]"),
            ("frobnicate", "there is no command `frobnicate`"),
            ("set k 'v", "no partner"),
        ] {
            let said = parse(line).unwrap_err();
            assert!(said.contains(says), "{line}: {said}");
        }
        assert!(help(Some("nothing")).is_err());
    }

    #[test]
    fn every_command_has_help_and_completes() {
        let all = help(None).unwrap();
        for command in &COMMANDS {
            assert!(all.contains(command.usage) && help(Some(command.name)).unwrap().contains(command.text));
            assert!(completions(&command.name[..2]).contains(&command.name));
            assert!(
                !matches!(parse(command.usage.split(['<', '[']).next().unwrap()), Err(said) if said.contains("there is no"))
            );
        }
        assert_eq!(completions("re"), ["remove-server"]);
        assert_eq!(completions("x").len(), 0);
    }
}
