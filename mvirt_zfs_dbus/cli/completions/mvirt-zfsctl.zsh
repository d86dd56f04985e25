#compdef mvirt-zfsctl
# zsh completion of mvirt-zfsctl. The program itself says what can follow; this only asks it.

_mvirt-zfsctl() {
    local -a candidates
    local line value
    for line in "${(@f)$("${words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == :files ]]; then
            _files
        elif [[ -n $line ]]; then
            value=${line%%$'\t'*}
            candidates+=("${value//:/\\:}:${line#*$'\t'}")
        fi
    done
    (( ${#candidates} )) && _describe mvirt-zfsctl candidates
}

if [[ $funcstack[1] == _mvirt-zfsctl ]]; then
    _mvirt-zfsctl "$@"
else
    compdef _mvirt-zfsctl mvirt-zfsctl
fi
