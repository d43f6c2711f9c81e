//! The links of the documents: each that stays in the repository leads to a file, and to a heading where it names one.
//!
//! Off the data path.
//! What it does not do: ask other hosts, or look at code blocks.

use crate::rules::SourceFile;

/// Every relative link of every document; `exists` says whether a path from the root does.
pub(crate) fn links_lead_somewhere(files: &[SourceFile], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, link) in links(&file.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            if let Some(problem) = problem(files, &file.path, &link, &exists) {
                broken.push(format!("{}:{line}: {link}: {problem}", file.path));
            }
        }
    }
    broken
}

fn problem(files: &[SourceFile], from: &str, link: &str, exists: impl Fn(&str) -> bool) -> Option<&'static str> {
    let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
    let path = if path.is_empty() { from.to_owned() } else { resolved(from, path)? };
    if !exists(&path) {
        return Some("there is no such file");
    }
    let heading = heading?;
    let headed = files.iter().find(|file| file.path == path).is_some_and(|file| has_heading(&file.text, heading));
    (!headed).then_some("the document has no such heading")
}

/// A path from the root; what leads out of it names no file.
fn resolved(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part != ".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return Some(String::from("../"));
        }
    }
    Some(parts.join("/"))
}

/// Lines outside of code blocks, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// Targets of `[text](target)` with their lines; what stands in backticks is none.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // The text of a link may be code, its target is not.
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("x");
        for (at, _) in plain.match_indices("](") {
            let target = &plain[at + 2..];
            let end = target.find(')').unwrap_or(target.len());
            let target = target[..end].split_whitespace().next().unwrap_or_default();
            found.push((number, target.to_owned()));
        }
    }
    found
}

/// Whether a document has a heading that is linked to as `#heading`.
fn has_heading(text: &str, heading: &str) -> bool {
    prose(text).filter_map(|(_, line)| line.strip_prefix('#')).any(|line| anchor(line) == heading)
}

/// What a heading is linked to by: lower case, hyphens for spaces, no punctuation.
fn anchor(heading: &str) -> String {
    let letters = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = letters.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let cases = [
            ("[a](engine/A.md)", 0),
            ("[a](./engine/../engine/A.md)", 0),
            ("[a](engine/A.md#two-words-of-it)", 0),
            ("[a](#here), [b](https://example.org/none#x)", 0),
            ("[`a`](engine/A.md \"title\")", 0),
            ("[a](engine/B.md)", 1),
            ("[a](../engine/A.md)", 1),
            ("[a](A.md) and [b](B.md)", 2),
            ("[a](engine/A.md#two)", 1),
            ("[a](engine/A.md#in-code)", 1),
            ("[`a`](none.md)", 1),
            ("[a](#there)", 1),
            ("`[a](none.md)`", 0),
            ("```\n[a](none.md)\n```", 0),
            ("```\n```\n[a](none.md)", 1),
        ];
        let engine = || SourceFile::new("engine/A.md", "# A\n\n## Two `words`, of it\n```\n# In code\n```\n");
        for (text, expected) in cases {
            let files = [SourceFile::new("README.md", &format!("# Here\n{text}\n")), engine()];
            let broken = links_lead_somewhere(&files, |path| ["README.md", "engine/A.md"].contains(&path));
            assert_eq!(broken.len(), expected, "{text}: {broken:?}");
        }
        let files = [SourceFile::new("engine/B.md", "[a](A.md)\n[b](../README.md)\n\n[c](x.md)"), engine()];
        let broken = links_lead_somewhere(&files, |path| ["README.md", "engine/A.md"].contains(&path));
        assert_eq!(broken, ["engine/B.md:4: x.md: there is no such file"]);
    }
}
