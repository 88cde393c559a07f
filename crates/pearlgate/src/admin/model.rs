//! What is searched for.

/// The least text above every text that begins like this one; the last of all when there is none.
pub(super) fn after_all(prefix: &str) -> String {
    let mut text = prefix.to_owned();
    text.push(char::MAX);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::after_all;

    proptest! {
        #[test]
        fn what_begins_like_it_lies_below_and_nothing_else_between(prefix in "[a-zé]{0,5}", rest in "\\PC{0,5}") {
            let end = after_all(&prefix);
            let longer = format!("{prefix}{rest}");
            prop_assert!(longer < end);
            prop_assert!(!(rest.as_str() >= prefix.as_str() && rest < end) || rest.starts_with(&prefix));
        }
    }
}
