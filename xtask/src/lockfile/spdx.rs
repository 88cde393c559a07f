//! Licence expressions: SPDX 2.3, annex D, and the form of old crates, "MIT/Apache-2.0", where `/` means OR.
//!
//! ```text
//! any  = all  { ("OR" | "/") all }
//! all  = one  { "AND" one }
//! one  = "(" any ")"  |  ID [ "WITH" ID ]
//! ```
//!
//! As for cargo-deny, a licence with an exception is another licence than the same one without.

/// Whether the listed licences suffice for the expression; an error when it cannot be read.
pub(crate) fn allowed(expression: &str, list: &[String]) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " / ");
    let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0, list };
    let allowed = parser.any()?;
    match parser.next() {
        None => Ok(allowed),
        Some(word) => Err(format!("`{word}` is left over")),
    }
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    list: &'a [String],
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<bool, String> {
        let mut allowed = self.all()?;
        while self.take("OR") || self.take("/") {
            // Both sides are always read: an error on the right is an error.
            allowed |= self.all()?;
        }
        Ok(allowed)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut allowed = self.one()?;
        while self.take("AND") {
            allowed &= self.one()?;
        }
        Ok(allowed)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let allowed = self.any()?;
            return if self.take(")") { Ok(allowed) } else { Err("a `)` is missing".to_owned()) };
        }
        let mut licence = self.id()?.to_owned();
        if self.take("WITH") {
            licence = format!("{licence} WITH {}", self.id()?);
        }
        Ok(self.list.contains(&licence))
    }

    fn id(&mut self) -> Result<&'a str, String> {
        match self.next() {
            None => Err("it ends where a licence should stand".to_owned()),
            Some(word @ ("OR" | "AND" | "WITH" | "/" | "(" | ")")) => {
                Err(format!("`{word}` stands where a licence should"))
            }
            Some(id) => Ok(id),
        }
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str) -> Result<bool, String> {
        let list = ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];
        allowed(expression, &list.map(str::to_owned))
    }

    #[test]
    fn one_branch_of_an_or_suffices() {
        for good in ["MIT", "MIT OR GPL-3.0-only", "GPL-3.0-only OR MIT", "MIT/Apache-2.0", "Unlicense / MIT"]
        {
            assert_eq!(check(good), Ok(true), "{good}");
        }
        assert_eq!(check("GPL-3.0-only OR LGPL-2.1-or-later"), Ok(false));
    }

    #[test]
    fn every_part_of_an_and_is_needed_and_binds_closer_than_or() {
        assert_eq!(check("(MIT OR Apache-2.0) AND Unicode-3.0"), Ok(true));
        assert_eq!(check("(MIT OR Apache-2.0) AND OpenSSL"), Ok(false));
        assert_eq!(check("MIT OR Apache-2.0 AND OpenSSL"), Ok(true));
        assert_eq!(check("MIT AND (OpenSSL OR (ISC OR Apache-2.0))"), Ok(true));
    }

    #[test]
    fn an_exception_makes_another_licence() {
        assert_eq!(check("Apache-2.0 WITH LLVM-exception"), Ok(true));
        assert_eq!(check("MIT WITH LLVM-exception"), Ok(false));
        assert_eq!(check("GPL-2.0-only WITH Classpath-exception-2.0 OR MIT"), Ok(true));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for bad in
            ["", "MIT OR", "OR MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH", "MIT or Apache-2.0", "()"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
