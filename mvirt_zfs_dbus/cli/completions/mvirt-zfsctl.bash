# bash completion of mvirt-zfsctl. The program itself says what can follow; this only asks it.

_mvirt_zfsctl() {
    local words line breaks="" kept char
    # bash cuts words at = : @ too, which names may hold: so the words come from the line.
    line=${COMP_LINE:0:COMP_POINT}
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    for char in : = @; do
        [[ $COMP_WORDBREAKS == *$char* ]] && breaks+=$char
    done
    # What stands before the last cut is not replaced, so it is not offered either.
    kept=${words[-1]}
    [[ $breaks ]] && kept=${kept%"${kept##*[$breaks]}"} || kept=""

    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o default
        else
            line=${line%%$'\t'*}
            COMPREPLY+=("${line#"$kept"}")
        fi
    done < <("$1" __complete "${words[@]:1}" 2>/dev/null)
}
complete -F _mvirt_zfsctl mvirt-zfsctl
