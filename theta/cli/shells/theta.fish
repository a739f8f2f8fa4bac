# Completion of theta and 'git theta' for fish: theta completion fish | source
function __theta_complete
    theta --complete fish (commandline -opc) (commandline -ct) 2>/dev/null
end
complete -c theta -f -a '(__theta_complete)'
complete -c git-theta -f -a '(__theta_complete)'
complete -c git -n '__fish_seen_subcommand_from theta' -f -a '(__theta_complete)'
