import type { Subject, SubjectMaker } from './subject.ts'

/**
 * comin: a daemon that polls its remotes, evaluates what is new, builds and deploys it. A unit beside it begins a
 * round and is over when that round is, by what `comin status --json` says (comin 0.9 and later have it). It does
 * not try a commit again that it could not deploy, and takes nothing back.
 */
export const comin: SubjectMaker = ({ branch, here }): Subject => ({
  kind: 'comin',
  title: 'comin',
  unit: 'lab-comin',
  profile: '/nix/var/nix/profiles/system-profiles/comin',
  promises: new Set(['deploy', 'refuse', 'offline', 'whole', 'history']),
  options: 'services.comin',
  forgets: 'systemctl stop comin.service; rm -rf /var/lib/comin; systemctl start comin.service',
  module: here ? moduleFor(branch) : undefined,
})

/** The one remote is the lab's, and is asked when a case begins a round. */
const moduleFor = (branch: string): string => `{ config, lib, pkgs, ... }:
let
  inherit (config.services.comin) package;
in
{
  services.comin.remotes = lib.mkForce [
    {
      name = "lab";
      url = "git://git.lab/config.git";
      branches.main.name = "${branch}";
      # without an end this would be an hour of a case
      timeout = 60;
      poller.period = 31536000;
    }
  ];
  systemd.services.lab-comin = {
    description = "One round of comin, from the fetch to its end";
    restartIfChanged = false;
    path = [
      package
      pkgs.jq
    ];
    serviceConfig = {
      Type = "oneshot";
      TimeoutStartSec = "1h";
      # whoever kills the round means the daemon that is at work
      ExecStopPost = pkgs.writeShellScript "lab-comin-killed" ''
        [ "$SERVICE_RESULT" != signal ] || systemctl kill --signal=KILL comin.service
      '';
    };
    script = ''
${round
  .trimEnd()
  .replaceAll("''", "'''")
  .replaceAll(/^(?=.)/gm, '      ')}
    '';
  };
}
`

/**
 * Shell that has comin fetch, and follows what comes of it to its end. A daemon that restarts itself is away for a
 * moment, and has only its store's word for what it did before. Its words are `evaluated`, `built`, `done` and, for
 * all three, `failed`; a commit that is built and not deployed is one whose system runs already.
 */
export const round = `state() {
  until said=$(comin status --json 2>/dev/null); do sleep 0.5; done
  jq --raw-output --arg commit "$commit" --argjson before "$before" "$1" <<<"$said"
}
commit='' before='[]'
fetched='[.fetcher.repository_status.remotes[].fetched_at] | join(" ")'
was=$(state "$fetched")
selected=$(state .fetcher.repository_status.selected_commit_id)
before=$(state '[.store.generations[].uuid] | tojson')
comin fetch >/dev/null
until [ "$(state "$fetched")" != "$was" ]; do sleep 0.2; done
error=$(state '.fetcher.repository_status.remotes[] | .fetch_error_msg, .main.error_msg | select(. != "")')
if [ -n "$error" ]; then
  echo "fetch: $error"
  exit 1
fi
commit=$(state .fetcher.repository_status.selected_commit_id)
# a commit that it has selected before begins nothing, and has come to what it came to then
[ "$commit" != "$selected" ] || before='[]'
end='' last=''
# between two steps nothing is at work either, but not for a second
until [ -n "$end" ] && [ "$end" = "$last" ]; do
  sleep 1
  last=$end
  end=$(state '
    ([.store.generations[] | select(.selected_commit_id == $commit and (.uuid | IN($before[]) | not))]
      | max_by(.eval_started_at)) as $new
    | if .builder.is_evaluating or .builder.is_building or .deployer.is_deploying
          or .deployer.generation_to_deploy != null or $new == null then empty
      elif $new.eval_status == "failed" then "evaluation: failed: " + $new.eval_err
      elif $new.build_status == "failed" then "build: failed: " + $new.build_err
      elif $new.build_status != "built" then empty
      else ([.store.deployments[] | select(.generation.uuid == $new.uuid)] | max_by(.created_at)) as $deployed
        | if $deployed == null then "build: done: the same as before"
          else "deployment: " + $deployed.status + ": " + $deployed.error_msg
          end
      end')
done
echo "$end"
[[ $end == *": done: "* ]]
`
