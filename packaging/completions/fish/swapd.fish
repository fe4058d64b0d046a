# fish completion of swapd(8): all that it knows, it asks swapd itself.

function __fish_swapd_complete
    command --query swapd; or return
    set -l word (commandline --cut-at-cursor --current-token)
    set -l before (commandline --cut-at-cursor --current-process --tokenize)
    for answer in (command swapd complete $before[2..] "$word" 2>/dev/null)
        switch $answer
            case :tarball
                __fish_complete_path "$word" | string match --regex '.*(?:/|\.tar|\.tar\.gz|\.tgz|\.tar\.zst|\.tar\.xz|\.tar\.bz2)(?:\t.*)?$'
            case :file
                __fish_complete_path "$word"
            case :directory
                __fish_complete_directories "$word"
            case :group
                __fish_complete_groups
            case '*'
                echo $answer
        end
    end
end

# In the order of the answers: the release that was live last comes first.
complete --command swapd --no-files --keep-order --arguments '(__fish_swapd_complete)'
