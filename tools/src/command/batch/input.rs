//! What batches read: lines of keys and values, in three forms, one at a time.
//!
//! Off the data path.
//!
//! | form | a pair | a key |
//! |---|---|---|
//! | `pairs` | `key=value`: the key ends at the first `=` | what stands before the first `=`, or the whole line |
//! | `tsv` | `key<TAB>value`: the key ends at the first tab | what stands before the first tab, or the whole line |
//! | `json` | `{"key": "k", "value": "v"}`, or `key_hex`, `value_hex` | the same, with or without a value |
//! | `auto` | by the first line: `{` is JSON, a tab is TSV, else pairs | `{` is JSON, a tab is TSV, else the line is the key |
//!
//! Invariants: a line is bounded before it is read to its end; an empty line is skipped; whatever is malformed is an error
//! that names its line, nothing is guessed.

use std::io::{BufRead, Read};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::Value;

/// Longest line: a value of a megabyte in hexadecimal, its key, and what JSON puts around them.
const LINE_BYTES_MAX: u64 = 8 << 20;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// As the first line looks
    Auto,
    /// key=value
    Pairs,
    /// key, a tab, value
    Tsv,
    /// {"key": "k", "value": "v"}, one object per line
    Json,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its number, from 1.
    pub(crate) line: u64,
    /// The key.
    pub(crate) key: Vec<u8>,
    /// Its value; empty where only keys are read.
    pub(crate) value: Vec<u8>,
    /// Bytes of the line.
    pub(crate) bytes: u64,
}

/// Lines, one at a time.
pub(crate) struct Items<R> {
    source: R,
    form: Form,
    with_values: bool,
    line: u64,
}

impl<R: BufRead> Items<R> {
    /// Reads pairs, or keys alone.
    pub(crate) fn new(source: R, form: Form, with_values: bool) -> Self {
        Self { source, form, with_values, line: 0 }
    }

    fn read(&mut self) -> Result<Option<Item>> {
        let mut line = Vec::new();
        loop {
            line.clear();
            self.line += 1;
            let read = (&mut self.source).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).context("cannot read")?;
            if read == 0 {
                return Ok(None);
            }
            let ended = line.last() == Some(&b'\n');
            ensure!(ended || (read as u64) < LINE_BYTES_MAX, "the line is longer than {LINE_BYTES_MAX} bytes");
            while matches!(line.last(), Some(b'\n' | b'\r')) {
                line.pop();
            }
            if !line.is_empty() {
                let (key, value) = self.split(&line)?;
                ensure!(!key.is_empty(), "the key is empty");
                return Ok(Some(Item { line: self.line, key, value, bytes: read as u64 }));
            }
        }
    }

    fn split(&mut self, line: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
        if self.form == Form::Auto {
            self.form = match line {
                [b'{', ..] => Form::Json,
                _ if line.contains(&b'\t') => Form::Tsv,
                _ if self.with_values => Form::Pairs,
                _ => return Ok((line.to_vec(), Vec::new())),
            };
        }
        let separator = match self.form {
            Form::Json => return self.json(line),
            Form::Tsv => b'\t',
            Form::Pairs | Form::Auto => b'=',
        };
        match line.iter().position(|byte| *byte == separator) {
            Some(at) => Ok((line[..at].to_vec(), if self.with_values { line[at + 1..].to_vec() } else { Vec::new() })),
            None if self.with_values && separator == b'=' => bail!("there is no `=` between key and value"),
            None if self.with_values => bail!("there is no tab between key and value"),
            None => Ok((line.to_vec(), Vec::new())),
        }
    }

    fn json(&self, line: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
        let object: Value = serde_json::from_slice(line).context("it is no JSON object")?;
        let key = member(&object, "key")?.context("there is no `key`")?;
        if !self.with_values {
            return Ok((key, Vec::new()));
        }
        Ok((key, member(&object, "value")?.context("there is no `value`")?))
    }
}

/// The bytes of a member: text, or hexadecimal digits under `name_hex`.
fn member(object: &Value, name: &str) -> Result<Option<Vec<u8>>> {
    match (&object[name], &object[format!("{name}_hex")]) {
        (Value::String(text), Value::Null) => Ok(Some(text.clone().into_bytes())),
        (Value::Null, Value::String(digits)) => {
            let digits = digits.as_bytes();
            let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
            let bytes: Option<Vec<u8>> = digits.chunks(2).map(|pair| byte(pair).filter(|_| pair.len() == 2)).collect();
            bytes.map(Some).with_context(|| format!("`{name}_hex` is not hexadecimal"))
        }
        (Value::Null, Value::Null) => Ok(None),
        _ => bail!("`{name}` is to be a text, or `{name}_hex` one of hexadecimal digits"),
    }
}

impl<R: BufRead> Iterator for Items<R> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        let item = self.read().transpose()?;
        Some(item.with_context(|| format!("line {}", self.line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str, form: Form) -> Vec<(String, String)> {
        let items = Items::new(text.as_bytes(), form, true).map(|item| item.unwrap());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        items.map(|item| (text(item.key), text(item.value))).collect()
    }

    fn keys(text: &str, form: Form) -> Vec<String> {
        let items = Items::new(text.as_bytes(), form, false).map(|item| item.unwrap());
        items.map(|item| String::from_utf8(item.key).unwrap()).collect()
    }

    fn strings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn three_forms_and_the_one_that_looks() {
        let expected = strings(&[("a", "1"), ("b", "x=y"), ("c", "")]);
        for form in [Form::Auto, Form::Pairs] {
            assert_eq!(pairs("a=1\n\nb=x=y\r\nc=", form), expected);
        }
        for form in [Form::Auto, Form::Tsv] {
            assert_eq!(pairs("a\t1\nb\tx=y\nc\t\n", form), expected);
        }
        let json = "{\"key\":\"a\",\"value\":\"1\"}\n{\"value\":\"x=y\",\"key\":\"b\"}\n{\"key_hex\":\"63\",\"value_hex\":\"\"}\n";
        for form in [Form::Auto, Form::Json] {
            assert_eq!(pairs(json, form), expected);
        }
        assert_eq!(keys("a\nb=1\n", Form::Auto), ["a", "b=1"]);
        assert_eq!(keys("a\nb=1\n", Form::Pairs), ["a", "b"]);
        assert_eq!(keys("a\t1\nb\n", Form::Auto), ["a", "b"]);
        assert_eq!(keys(json, Form::Auto), ["a", "b", "c"]);
    }

    #[test]
    fn what_is_malformed_names_its_line() {
        for (text, form, says) in [
            ("a=1\nb\n", Form::Auto, "line 2: there is no `=`"),
            ("a\t1\n\nb\n", Form::Auto, "line 3: there is no tab"),
            ("=1\n", Form::Pairs, "line 1: the key is empty"),
            ("{\"key\":\"a\"}\n", Form::Auto, "line 1: there is no `value`"),
            ("{\"key\":7,\"value\":\"\"}\n", Form::Auto, "`key` is to be a text"),
            ("{\"key_hex\":\"6\",\"value\":\"\"}\n", Form::Auto, "`key_hex` is not hexadecimal"),
            ("a=1\n", Form::Json, "line 1: it is no JSON object"),
        ] {
            let error = Items::new(text.as_bytes(), form, true).find_map(Result::err).unwrap();
            assert!(format!("{error:#}").contains(says), "{text:?}: {error:#}");
        }
        let endless = Items::new(std::io::BufReader::new(std::io::repeat(b'a')), Form::Auto, true).next().unwrap();
        assert!(format!("{:#}", endless.unwrap_err()).contains("longer than"));
    }
}
