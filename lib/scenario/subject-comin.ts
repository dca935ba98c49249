import type { Subject, SubjectMaker } from './subject.ts'

/**
 * comin: a daemon that polls its remotes, then evaluates, builds and deploys new commits. An extra unit starts one round
 * and ends when the round has, according to `comin status --json` (comin 0.9 and later have it). comin does not try a
 * commit again that it could not deploy, and rolls nothing back.
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

/** The only remote is the lab's, and it is polled only when a case begins a round. */
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
      # without a limit, a fetch that hangs would cost a case an hour
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
      # a kill of the round is meant for the daemon, which does the work
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
 * Shell that makes comin fetch, and follows the round to its end. A daemon that restarts itself is away for a moment, and
 * then knows what it did before only from its store. Its states are `evaluated`, `built`, `done` and, for all three,
 * `failed`; a commit that is built and not deployed is one whose system runs already.
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
# a commit that was selected before starts nothing, and keeps its earlier result
[ "$commit" != "$selected" ] || before='[]'
end='' last=''
# comin is idle between two steps as well, but for less than a second
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
