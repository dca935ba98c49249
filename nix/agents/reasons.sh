# shellcheck shell=bash
# shellcheck disable=SC2034 # the program that this is a part of uses it
# Reads the output of git, jj and ssh, for every agent that talks to a remote: finds the one line that gives the
# reason, and whether waiting may help. Results come in REPLY, `verdict` and `remedy`.

verdict='' remedy=''

# why <text>: finds the reason in a program's whole output, as one line in REPLY. A reason of several lines, such as
# jj's causes, is joined; hints and the lines that git prints after every failure are left out.
why() {
  local line first='' last='' causes='' in_causes=''
  REPLY=''
  while IFS= read -r line; do
    case $line in
      # jj's line on why a remote refuses a push
      '  '*' (reason: '*')') line=${line##* (reason: } && causes+=": ${line%)}" ;;
      '' | [Hh]int:* | [Ww]arning:* | '  '* | remote:* | 'Fetching into new repo'* | 'See http'*) ;;
      'fatal: Could not read from remote'* | 'Please make sure you have'* | 'and the repository exists.'*) ;;
      *'git program failed:' | 'Caused by:') in_causes=yes ;;
      'No end within '*) REPLY=$line && return ;;
      *)
        last=$line
        if [[ $line =~ ^(Error|Internal\ error|Config\ error):\ (.*)$ ]]; then
          first=${BASH_REMATCH[2]}
        elif [[ $line =~ ^Caused\ by:\ (.*)$ || (-n $in_causes && $line =~ ^[0-9]+:\ (.*)$) ]]; then
          add_cause "${BASH_REMATCH[1]}"
        elif [[ -z $first && $line =~ ^(fatal|error|ERROR|ssh): ]]; then
          first=$line
        fi
        ;;
    esac
  done < <(one_line_each <<<"$1")
  REPLY=${first:-$last}$causes
  if [[ $REPLY == 'Commit '*' is immutable' ]]; then
    REPLY+=" (by a tag, a bookmark of a remote that is not tracked, or this user's setting of immutable_heads())"
  fi
  # the remote's own message is often the more useful half
  line=$(sed -n -E 's/^remote: *([^ ].*[^ ]) *$/\1/p' <<<"$1" | grep -v -E '^[=*-]+$' || true)
  line=$(grep -m 1 -v -E '^(error|fatal): ' <<<"$line" || sed -n -E '1s/^(error|fatal): //p' <<<"$line")
  if [[ -n $line && $REPLY != *"$line"* && $REPLY == *': '* ]]; then REPLY+=" (the remote says: $line)"; fi
}
# jj may print the same cause at several depths.
add_cause() { if [[ $first != *": $1" ]]; then first+=": $1"; fi; } # add_cause <text>: appends it to `first` of why
# An error that ends with a colon continues on the next line. jj passes on git's output, which overwrites one line.
one_line_each() {
  sed -e 's/\r/\n/g' | sed -E -e 's/^git: //; s/[[:space:]]+(git:)?[[:space:]]*$//; /^(git:)?$/d' |
    sed -E -e ':next' -e '/^(fatal|error): .*:$/{N;s/\n */ /;b next' -e '}'
}

# readable <text>: one line of text without bytes that are not UTF-8, in REPLY; readers of JSON reject them.
readable() {
  local LC_ALL=C
  REPLY=$1
  if [[ $1 == *[$'\x80'-$'\xff']* ]]; then
    REPLY=$(LC_ALL=C.UTF-8 grep --text --only-matching . <<<"$1" | paste --serial --delimiters '' || true)
  fi
}

# judge_remote <text>: sets `verdict` to `offline` where an error of git or jj may be gone in an hour, or to `failed`
# where a person has to fix it, and `remedy` to how. Only network errors are `offline`: an unknown fault
# should be seen, not waited for.
judge_remote() {
  local said
  # names of files, branches and hosts could be any of the words below
  said=$(sed -E "s/(^|[ (])'[^']*'/\1/g; s/\"[^\"]*\"//g; s#[a-z+]+://[^ ]*##g" <<<"$1")
  said=${said,,}
  verdict=failed remedy=''
  if is_damaged "$(grep --text -v '^remote:' <<<"$1")"; then
    verdict=offline
    return
  fi
  # what the remote says about a disk is about its own disk
  case $(grep --text -v '^remote:' <<<"$said") in
    # faults of this machine
    *'dubious ownership'* | *'insufficient permission for adding'*)
      remedy="files of the repository belong to another user, as after \`sudo git pull\`" ;;
    *'no space left'* | *'disk quota exceeded'*) remedy='make room' ;;
    *'read-only file system'*) remedy='its file system is mounted read-only' ;;
    *'input/output error'*) remedy='its disk has read or write errors' ;;
    *"unable to create "*'file exists'* | *'another git process'*)
      remedy='a program that was ended left its lock: remove it, unless git or jj is running there' ;;
    *'bad object'* | *'bad ref'* | *'is corrupt'* | *'object file'*'is empty'* | *'missing blob'* | *'missing tree'*)
      remedy="the repository is damaged: \`git fsck\` tells where" ;;
    *'permission denied (publickey'* | *'permission denied (password'* | *'permission denied (keyboard'* | \
      *'permission denied (gssapi'* | *'permission denied (hostbased'* | *'too many authentication failures'*)
      remedy='the remote accepts none of the keys that this user has here' ;;
    *'host key verification failed'* | *'remote host identification has changed'*)
      remedy="the remote's host key is not the one in known_hosts, or is not there yet: compare it, and add it" ;;
    *'permission denied'* | *'operation not permitted'*) remedy='look at who owns it' ;;
  esac
  if [[ -n $remedy ]]; then return; fi
  case $said in
    # the remote's answers
    *'(reason: unpacker error)'* | *'no space left'* | *'read-only file system'* | *'permission denied'* | *'insufficient permission'*)
      remedy='the remote cannot use its own repository: look at its disk there, and who owns it' ;;
    *'find remote ref'* | *'could not find remote branch'*) remedy='the branch is not there' ;;
    *'rate limit'* | *'too many requests'* | *'try again later'* | *'temporarily unavailable'*) verdict=offline ;;
    *certificate* | *'ssl ca cert'*) remedy='its TLS certificate is rejected' ;;
    *'could not read username'* | *'could not read password'* | *'authentication failed'* | *'invalid credentials'*)
      remedy='the remote wants a name and a password, or a token, and got no valid one from this host' ;;
    *'no author and/or committer'*)
      remedy="set \`user.name\` and \`user.email\` by \`jj config set --user\`, then \`jj metaedit --update-author\` that commit" ;;
    *'base from redirection'* | *'is this a git repository'* | *'invalid server response'* | *'redirects followed'*)
      remedy='the URL leads to a web page, such as a login, or the repository has moved' ;;
    *'not found'* | *'not exported'* | *'not appear to be a git'* | *'could not find repository'* | *'does not exist'* | \
      *'no git remotes'* | *'could not be found'*)
      remedy='look at the URL of the remote, and whether this host may read it' ;;
    *)
      if [[ $said =~ (returned error|http code|http error|http|status code|server error|tunnel failed, response):?\ ([345][0-9][0-9]) ]]; then
        judge_http "${BASH_REMATCH[2]}"
      elif [[ $said != *'remote error'* && $said =~ $network ]]; then
        verdict=offline
      fi
      ;;
  esac
}

# Whether the data was damaged on the way. A line begins with its length in four digits; if exactly one of them is not
# a digit, it was damaged. The greeting of a shell, or a server of another protocol, has words there.
is_damaged() { # is_damaged <what git said>
  local LC_ALL=C length
  if [[ $1 =~ $damaged ]]; then return 0; fi
  if [[ $1 != *'bad line length character: '* ]]; then return 1; fi
  length=${1##*'bad line length character: '}
  # jj prints this character for an invalid byte
  length=${length//$'\xef\xbf\xbd'/?}
  length=${length:0:4}
  length=${length//[^0-9a-f]/}
  [[ ${#length} == 3 ]]
}
damaged='pack has bad object at offset|pack is corrupted|pack signature mismatch|bad pack header|bad band #|inflate returned|bad line length -?[0-9]|invalid ls-refs response'

# what git, curl, ssh and jj print when the network fails, or when the remote is down
network='resolve (host|proxy)|name or service not known|temporary failure|unable to look up|no address associated'
network+='|connection (was |to [^ ]+ )?(refused|reset|closed|aborted|timed out)|(failed|unable|could not|couldn.t) to? ?connect|timed out|timeout'
network+='|no route to host|(network|host) is (unreachable|down)|broken pipe|early eof|hung up|disconnect|unexpected (eof|end)'
network+='|empty reply|server returned nothing|(recv|send) failure|receiving data|recv error|ssl_error_syscall|non-properly terminated'
network+='|partial file|operation too slow|failed sending data|kex_exchange|banner exchange|stream .*(not closed|reset)|http2 framing|connect aborted|authentication code incorrect|bytes (missing|remaining|of (body|length))|outstanding read data|no end within'

judge_http() { # judge_http <status>
  case $1 in
    5?? | 408 | 425 | 429) verdict=offline ;;
    401 | 407) remedy='the remote wants a name and a password, or a token, and got no valid one from this host' ;;
    403) remedy='the remote refuses access to this user: a token may have expired, or lack the right' ;;
    404 | 410) remedy='look at the URL of the remote, and whether this host may read it' ;;
    3??) remedy='the remote has moved: set its new URL' ;;
  esac
}

# judge_certificate <url> <command that runs git within a time limit...>: why a certificate was rejected, in `remedy`.
# Asks the server again, without that check and without credentials, for the certificate's dates and the server's clock.
judge_certificate() {
  local url=$1 said expires begins theirs ours
  shift
  url=$(sed -E 's#//[^/@]*@#//#' <<<"$url")
  said=$("$@" env GIT_TRACE_CURL=1 GIT_TERMINAL_PROMPT=0 git -c http.sslVerify=false -c credential.helper= \
    ls-remote "$url" 2>&1 || true)
  said=${said//$'\r'/}
  begins=$(date_in "$said" 'start date: ') expires=$(date_in "$said" 'expire date: ')
  theirs=$(date_in "$said" 'Recv header: [Dd]ate: ')
  ours=$(date +%s)
  if [[ -n $theirs && (theirs -gt $((ours + 86400)) || theirs -lt $((ours - 86400))) ]]; then
    remedy="the clock of this machine is wrong: it is $(day "$ours") here and $(day "$theirs") on the remote"
  elif [[ -n $expires && $ours -gt $expires ]]; then
    remedy="the certificate of the remote expired on $(day "$expires"), and it is $(day "$ours") here: the remote has to renew it, unless the clock of this machine is wrong"
  elif [[ -n $begins && $ours -lt $begins ]]; then
    remedy="the certificate of the remote is not valid before $(day "$begins"), and it is $(day "$ours") here: the clock of this machine is behind"
  else
    remedy='the dates of its TLS certificate are valid, but its issuer is not trusted by this machine, or it is for another host name'
  fi
}
day() { date --utc --date "@$1" +%F; }
date_in() { # date_in <text> <label before the date>: in seconds since 1970
  local text
  text=$(sed -n -E "s/.*$2(.*)/\1/p" <<<"$1" | head -n 1)
  if [[ -n $text ]]; then date --date "$text" +%s || true; fi
}

# not_of <user> <repository>: the first file of the repository that belongs to another user, as a remedy after a
# semicolon, in REPLY; empty where all files are this user's
not_of() {
  REPLY=$(find "$2/.git" "$2/.jj" ! -user "$1" -printf '%p belongs to %u' -quit 2>/dev/null || true)
  REPLY=${REPLY:+"; $REPLY: \`sudo chown -R $1: $2\` gives it back"}
}
