//! Looks at Rust source as text: what is code, which words it names, how long its functions are.
//!
//! Off the data path.
//! Invariant: `code` keeps every line where it is, so that line numbers stay true.
//! What it does not do: parse. Macros that make functions are not expanded.

/// What a source says once comments, strings and characters are blanked out; line breaks stay.
pub(crate) fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped(bytes, at);
        if end == at {
            kept.push(bytes[at]);
            at += 1;
        } else {
            kept.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Where the comment or literal that begins at `at` ends, or `at` if none begins there.
fn skipped(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + block_comment(rest);
    }
    if rest[0] == b'"' {
        return at + quoted(rest, b'"');
    }
    if rest[0] == b'\'' {
        return at + character(rest);
    }
    let inside_word = at > 0 && is_word(bytes[at - 1]);
    if inside_word { at } else { at + raw_string(rest) }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of a character literal, or 0 for a lifetime.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return quoted(rest, b'\'');
    }
    // One character of up to four bytes, then the closing quote.
    let close = rest.iter().skip(2).take(4).position(|byte| *byte == b'\'').map(|found| found + 2);
    match close {
        Some(2) => 3,
        Some(close) if !rest[1].is_ascii() => close + 1,
        _ => 0,
    }
}

/// Length of `r"..."`, `r#"..."#`, `br"..."` and the like, or 0.
fn raw_string(rest: &[u8]) -> usize {
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'c')).count();
    if prefix > 1 || rest.get(prefix) != Some(&b'r') {
        return 0;
    }
    let hashes = rest[prefix + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + 1 + hashes;
    if rest.get(open) != Some(&b'"') {
        return 0;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = &rest[open + 1..];
    let length = body.windows(close.len()).position(|window| window == close).unwrap_or(body.len());
    (open + 1 + length + close.len()).min(rest.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// One place where a word stands in code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Counted from 1.
    pub(crate) line: usize,
    /// Code of the same line before the word.
    pub(crate) before: String,
    /// Code of the same line after the word.
    pub(crate) after: String,
}

/// Every place where `word` stands as a whole word in blanked `code`.
pub(crate) fn word(code: &str, word: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for (start, _) in line.match_indices(word) {
            let (before, after) = (&line[..start], &line[start + word.len()..]);
            if before.bytes().last().is_some_and(is_word) || after.bytes().next().is_some_and(is_word) {
                continue;
            }
            places.push(Place { line: number + 1, before: before.to_owned(), after: after.to_owned() });
        }
    }
    places
}

impl Place {
    /// The word is a module of ours here: declared by `mod`, or reached as `something::word`.
    pub(crate) fn is_own_module(&self) -> bool {
        let before = self.before.trim_end();
        let path = before.strip_suffix("::").is_some_and(|owner| owner.bytes().last().is_some_and(is_word));
        path || before.ends_with(" mod") || before == "mod"
    }

    /// The word calls a macro here.
    pub(crate) fn is_macro(&self) -> bool {
        self.after.starts_with('!')
    }
}

/// A function and its extent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name alone.
    pub(crate) name: String,
    /// Where `fn` stands, from 1.
    pub(crate) line: usize,
    /// From the line of `fn` to the line of its closing brace.
    pub(crate) lines: usize,
}

/// Every function with a body in blanked `code`.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        if start > 0 && is_word(bytes[start - 1]) {
            continue;
        }
        let name: String =
            code[start + 3..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) = body_open(bytes, start) else { continue };
        if name.is_empty() {
            continue;
        }
        let close = body_close(bytes, open);
        let line = 1 + newlines(&bytes[..start]);
        found.push(Function { name, line, lines: 1 + newlines(&bytes[start..close]) });
    }
    found
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// The brace that opens the body; none if a `;` outside of brackets comes first.
fn body_open(bytes: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn body_close(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_i32;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let cases = [
            ("unsafe // unsafe", 1),
            ("/* unsafe /* unsafe */ unsafe */ unsafe", 1),
            ("\"unsafe\" unsafe", 1),
            ("\"\\\"unsafe\" unsafe", 1),
            ("r\"unsafe\\\" unsafe", 1),
            ("br#\"unsafe\" unsafe\"# unsafe", 1),
            ("'\"' unsafe '\"'", 1),
            ("'\\'' unsafe", 1),
            ("&'a unsafe &'b", 1),
            ("'ä' unsafe 'ö'", 1),
            ("b'\"' unsafe b\"unsafe\"", 1),
            ("#![forbid(unsafe_code)] not_unsafe", 0),
            ("//! unsafe\nfn f() {}", 0),
            ("for_r\"unsafe\" unsafe", 1),
            ("\"never closed unsafe", 0),
        ];
        for (source, expected) in cases {
            assert_eq!(word(&code(source), "unsafe").len(), expected, "{source:?} as {:?}", code(source));
        }
    }

    #[test]
    fn line_numbers_survive_blanking() {
        let source = "/*\n\n*/\n\"\n\"; here\n";
        let places = word(&code(source), "here");
        assert_eq!(places.iter().map(|place| place.line).collect::<Vec<_>>(), [5]);
        assert_eq!(newlines(code(source).as_bytes()), newlines(source.as_bytes()));
    }

    #[test]
    fn a_module_of_ours_is_told_from_the_crate() {
        let own = ["mod glommio;", "pub mod glommio;", "use crate::glommio::Disk;", "ringraft_wal::glommio::x()"];
        let foreign = ["use glommio::Task;", "use ::glommio::Task;", "glommio::spawn_local()", "#[glommio::main]"];
        for source in own {
            assert!(word(source, "glommio")[0].is_own_module(), "{source}");
        }
        for source in foreign {
            assert!(!word(source, "glommio")[0].is_own_module(), "{source}");
        }
    }

    #[test]
    fn functions_are_measured() {
        let source =
            "trait T {\n fn declared(&self, a: [u8; 2]);\n}\nfn one() {}\npub fn three(f: fn(u8) -> u8)\n{\n}\n";
        let source = format!("{source}fn outer() {{\n  let s = \"}}\";\n  fn inner() {{\n  }}\n}}\n");
        let measured: Vec<_> = functions(&code(&source)).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        let expected = [("one", 4, 1), ("three", 5, 3), ("outer", 8, 5), ("inner", 10, 2)];
        assert_eq!(measured, expected.map(|(name, line, lines)| (name.to_owned(), line, lines)));
    }
}
