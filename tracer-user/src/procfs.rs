//! The files of /proc that have a field a line, as `status` and `fdinfo`.

/// What stands behind `name:` (proc_pid_status(5)).
pub fn field<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    let value = |line: &'text str| line.strip_prefix(name)?.strip_prefix(':');
    text.lines().find_map(value).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "Name:\tjava\nVmRSSx:\t1\nVmRSS:\t  2048 kB\nSigCgt:\n";
        assert_eq!(field(status, "VmRSS"), Some("2048 kB"));
        assert_eq!(field(status, "SigCgt"), Some(""));
        assert_eq!(field(status, "Vm"), None);
    }
}
