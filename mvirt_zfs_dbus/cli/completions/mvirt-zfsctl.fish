# fish completion of mvirt-zfsctl. The program itself says what can follow; this only asks it.

function __mvirt_zfsctl_candidates
    set --local words (commandline --tokenize --current-process --cut-at-cursor)
    set --local current (commandline --current-token --cut-at-cursor)
    for line in ($words[1] __complete $words[2..] "$current" 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end

complete --command mvirt-zfsctl --no-files --arguments '(__mvirt_zfsctl_candidates)'
