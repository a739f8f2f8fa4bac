# Completion of theta and 'git theta' for bash: eval "$(theta completion bash)"
_theta() {
    local IFS=$'\n'
    COMPREPLY=($(theta --complete bash "$COMP_POINT" "$COMP_WORDBREAKS" "$COMP_LINE" 2>/dev/null))
    compopt -o nospace 2>/dev/null
}
_git_theta() { _theta; }
complete -o nospace -F _theta theta git-theta
