//! Prints docs/guide/errors.md from the table of error codes.

#![expect(clippy::print_stdout, reason = "it prints a page")]

fn main() {
    println!("# Error codes\n");
    println!(
        "Every refusal is `application/problem+json` (RFC 9457) with a stable `code`; its `type` leads to the same words as here."
    );
    println!(
        "This page is made from the server's own table: `cargo run -p pearlgate --example error_guide > docs/guide/errors.md`.\n"
    );
    for entry in pearlgate::errors::all() {
        println!(
            "## `{}`\n\n{}: {}\n\n{}\n\n**What to do:** {}\n",
            entry.code, entry.status, entry.title, entry.cause, entry.remedy
        );
    }
}
