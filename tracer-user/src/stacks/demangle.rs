//! A symbol's name as its language writes it, bounded in length: mangled names come from hostile files.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

/// A C++ name of 300 characters can spell out gigabytes through its substitutions.
pub(super) const NAME_MAX_BYTES: usize = 1_024;
const RECURSION_MAX: u32 = 64;

/// The readable form of `mangled`; the name itself where it is not mangled.
pub(super) fn demangle(mangled: &str) -> String {
    if let Ok(name) = rustc_demangle::try_demangle(mangled) {
        let mut bounded = Bounded::default();
        // `{:#}` leaves out the hash. A name that passes the bound is cut, which is no error here.
        let _ = write!(bounded, "{name:#}");
        return of_person(&bounded.text).to_owned();
    }
    if mangled.starts_with("_Z")
        && let Some(name) = demangle_cpp(mangled)
    {
        return name;
    }
    let mut bounded = Bounded::default();
    let _ = bounded.write_str(mangled);
    bounded.text
}

/// Where rustc put the body of an async function, or of a closure: in the function that a person
/// wrote. `{closure#0}` in one mangling, `{{closure}}` in the other.
fn of_person(name: &str) -> &str {
    let mut function = name;
    while let Some((outer, last)) = function.rsplit_once("::")
        && is_nested(last)
    {
        function = outer;
    }
    function
}

/// What rustc calls code that has no name of its own; debug information of line tables alone has
/// no more of a function than this.
pub(super) fn is_nested(name: &str) -> bool {
    const KINDS: [&str; 4] = ["{closure", "{{closure", "{async_fn", "{async_block"];
    name.ends_with('}') && KINDS.iter().any(|kind| name.starts_with(kind))
}

fn demangle_cpp(mangled: &str) -> Option<String> {
    if mangled.len() > NAME_MAX_BYTES * 4 {
        return None;
    }
    let parse = ParseOptions::default().recursion_limit(RECURSION_MAX);
    let symbol = Symbol::new_with_options(mangled.as_bytes(), &parse).ok()?;
    let options = DemangleOptions::new()
        .no_params()
        .recursion_limit(RECURSION_MAX);
    let mut bounded = Bounded::default();
    match symbol.structured_demangle(&mut bounded, &options) {
        Ok(()) => Some(bounded.text),
        Err(_) if bounded.cut => Some(bounded.text),
        Err(_) => None,
    }
}

/// Text that refuses to grow beyond the bound; the refusal also stops the writer.
#[derive(Default)]
struct Bounded {
    text: String,
    cut: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = NAME_MAX_BYTES - self.text.len();
        if part.len() <= room {
            self.text.push_str(part);
            return Ok(());
        }
        self.cut = true;
        let end = (0..=room).rev().find(|at| part.is_char_boundary(*at));
        self.text.push_str(&part[..end.unwrap_or(0)]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::{demangle, of_person};

    #[test]
    fn rust_names_lose_their_hash() {
        assert_eq!(
            demangle("_ZN5orders12handle_order17h0123456789abcdefE"),
            "_ZN5orders12handle_order17h0123456789abcdefE"
        );
        assert_eq!(
            demangle("_ZN6orders12handle_order17h0123456789abcdefE"),
            "orders::handle_order"
        );
    }

    #[test]
    fn async_functions_and_closures_are_the_function_they_stand_in() {
        assert_eq!(
            demangle("_ZN6orders10get_client28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE"),
            "orders::get_client"
        );
        assert_eq!(
            demangle("_RNCNCNvCs4fqI2P2rA04_6orders12handle_order00"),
            "orders::handle_order"
        );
        assert_eq!(
            of_person("<a::B<{closure#0}> as c::D>::e"),
            "<a::B<{closure#0}> as c::D>::e"
        );
        assert_eq!(of_person("{async_fn#0}"), "{async_fn#0}");
    }

    #[test]
    fn cpp_names_lose_their_parameters() {
        assert_eq!(demangle("_ZN5cache10get_clientEi"), "cache::get_client");
    }

    #[test]
    fn c_names_stay() {
        assert_eq!(demangle("redisConnect"), "redisConnect");
    }

    #[test]
    fn a_name_that_spells_out_gigabytes_is_cut() {
        // S2_ is p<a, a>; each further argument holds the one before it twice.
        let digits: Vec<char> = ('2'..='9').chain('A'..='Z').collect();
        let levels = digits
            .iter()
            .map(|digit| format!("S0_IS{digit}_S{digit}_E"));
        let bomb = format!("_Z1fI1pI1aS1_E{}Evv", levels.collect::<String>());
        assert_eq!(demangle(&bomb).len(), super::NAME_MAX_BYTES);
        assert!(demangle(&"x".repeat(1 << 20)).len() <= super::NAME_MAX_BYTES);
    }
}
