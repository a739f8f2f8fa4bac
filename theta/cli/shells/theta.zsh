#compdef theta git-theta
# Completion of theta and 'git theta' for zsh: eval "$(theta completion zsh)", behind compinit
_theta() {
    local line
    local -a whole open
    for line in "${(@f)$(theta --complete zsh "${(@Q)words[1,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == *' ' ]]; then whole+=("${line% }"); elif [[ -n $line ]]; then open+=("$line"); fi
    done
    (( $#whole )) && compadd -a whole
    (( $#open )) && compadd -S '' -a open
    (( $#whole + $#open ))
}
_git-theta() { _theta "$@"; }
if [[ $funcstack[1] == _theta ]]; then _theta "$@"; else compdef _theta theta git-theta; fi
