#!/usr/bin/env bash
# A worker for Atlas in bash, with curl, jq and pgrep. It takes one job at a time, and executes the job types of the
# conformance suite; README.md tells how to give it yours. Usage: worker.sh [http://HOST:PORT]
set -uo pipefail

base=${1:-${ATLAS_HTTP_SERVER:-http://127.0.0.1:8080}}/v1/worker
types='[{"name": "check.echo"}, {"name": "check.steps"}, {"name": "check.fail"}, {"name": "check.tick"}]'
drain=2000 # milliseconds that a job has to end at SIGTERM

# --- the job types: a function reads "$job", an Assignment, and prints how it ended, a JobReport without id and token ---

check.echo() { jq -c '{success: {resultJson: (.payload.value | tojson)}}' <<<"$job"; }

check.fail() { jq -c '{failure: (.payload | {reason, message, final})}' <<<"$job"; }

check.steps() {
  local step steps
  steps=$(jq .payload.steps <<<"$job")
  for ((step = 1; step <= steps; step++)); do
    tell "{\"progress\": {\"current\": $step, \"total\": $steps, \"message\": \"step $step\"},
      \"logs\": [{\"severity\": \"INFO\", \"message\": \"step $step\"}]}"
  done
  echo "{\"success\": {\"resultJson\": \"$steps\"}}"
}

check.tick() {
  local file end
  file=$(jq -r .payload.file <<<"$job")
  end=$(($(now) + $(jq '.payload.seconds * 1000 | floor' <<<"$job")))
  echo begin >>"$file"
  while (($(now) < end)); do
    echo tick >>"$file"
    sleep 0.1
  done
  echo end >>"$file"
  echo '{"success": {}}'
}

# tell UPDATE: hands in progress and logs, a JobUpdate without id and token.
tell() {
  call heartbeat "$(jq -c --arg session "$session" --argjson update "$1" \
    '{$session, updates: [{id, token} + $update]}' <<<"$job")"
}

# --- calls ------------------------------------------------------------------------------------------------------------

# Milliseconds of the clock.
now() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

# seconds MILLISECONDS
seconds() { printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)); }

# The options of curl for: request METHOD MILLISECONDS.
request() {
  options=(--silent --max-time "$(seconds "$2")" --header 'Content-Type: application/json' --data-binary @-
    --write-out '\n%{http_code}' "$base:$1")
}

# call METHOD REQUEST: leaves the status in `code` and the answer in `answer`; fails unless the status is 200. No call may
# take so long that the lease runs out over it.
call() {
  local options
  request "$1" $((lease / 5))
  understand "$(curl "${options[@]}" <<<"$2")"
}

understand() {
  code=${1##*$'\n'} answer=${1%$'\n'*}
  [[ $code == 200 ]]
}

# --- a job ------------------------------------------------------------------------------------------------------------

# Executes "$job", and beats meanwhile. What is known of the lease is that it lasts from when the last call was sent that
# was answered; the job is stopped in time before it ends.
execute() {
  local pid due kept=$asked stop='' sent giving_up=''
  "$(jq -r .type <<<"$job")" >"$work/report" &
  pid=$!
  due=$(($(now) + lease / 4))
  while [[ ! $stop ]] && kill -0 "$pid" 2>/dev/null; do
    sleep 0.05
    sent=$(now)
    [[ $draining && ! $giving_up ]] && giving_up=$((sent + drain))
    if ((sent > kept + lease * 3 / 4)); then
      stop=LOST session='' # maybe we are heard all the same: the job must not stay with a session that lives
    elif [[ $giving_up ]] && ((sent > giving_up)); then
      stop=RELEASED
    elif ((sent > due)); then
      if call heartbeat "$(jq -c --arg session "$session" '{$session, holding: [{id, token}]}' <<<"$job")"; then
        kept=$sent due=$((sent + lease / 4))
        stop=$(jq -r '.stops[0].reason // empty' <<<"$answer")
      elif [[ $code == 404 ]]; then
        stop=LOST
      fi
    fi
  done
  [[ $stop ]] && end "$pid"
  wait "$pid" 2>/dev/null
  case $stop in
    LOST) return ;; # nothing that is said about it would be accepted
    CANCELLED) echo '{"cancelled": {}}' >"$work/report" ;;
    RELEASED) echo '{"release": {}}' >"$work/report" ;;
    *) [[ -s $work/report ]] || echo '{"failure": {"message": "it reported nothing"}}' >"$work/report" ;;
  esac
  report
}

# Kills a process and all that it started.
end() {
  local child
  kill -STOP "$1" 2>/dev/null || return
  for child in $(pgrep -P "$1"); do end "$child"; done
  kill -KILL "$1" 2>/dev/null
}

# Hands the report in until that is answered: a repeat does no harm. If it is refused, the job is still ours, and fails.
report() {
  local last=$(($(now) + drain)) message
  hand_in "$last" && [[ $(jq -r '.answers[0].status' <<<"$answer") != REFUSED ]] && return
  message=$(jq -r '(.answers[0].error // .).message' <<<"$answer" 2>/dev/null)
  jq -nc --arg message "$message" '{failure: {reason: "RESULT_REFUSED", $message, final: true}}' >"$work/report"
  hand_in "$last"
}

# hand_in LAST: at SIGTERM it tries until then.
hand_in() {
  until call finish "$(jq -c --arg session "$session" --slurpfile report "$work/report" \
    '{$session, reports: [{id, token} + $report[0]]}' <<<"$job")"; do
    [[ $code == 400 || $code == 413 ]] && return 1 # it will never be taken
    [[ $draining ]] && (($(now) > $1)) && return 1
    sleep 0.2
  done
}

# --- the worker -------------------------------------------------------------------------------------------------------

# Asks for a job, and waits for one. In the background, so that a signal is heeded at once. We never ask with a job in hand:
# one that the session holds came with an answer that did not arrive, and goes back.
lease() {
  local options wait=$((lease / 4))
  [[ $session ]] || wait=0 # how long the lease is, is not known yet
  request lease $((wait + lease / 5))
  asked=$(now)
  curl "${options[@]}" >"$work/answer" \
    <<<"{\"worker\": \"bash-$$\", \"session\": \"$session\", \"types\": $types, \"wait\": \"$(seconds "$wait")s\",
      \"returnOthers\": true}" &
  leasing=$!
  wait "$leasing"
  leasing=''
  understand "$(<"$work/answer")"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
session='' lease=30000 draining='' leasing='' code='' answer='' job='' asked=0
trap 'draining=yes; [[ $leasing ]] && kill "$leasing"' TERM INT

while [[ ! $draining ]]; do
  if lease; then
    session=$(jq -r .session <<<"$answer")
    lease=$(jq -r '.leaseDuration | rtrimstr("s") | tonumber * 1000 | floor' <<<"$answer")
    job=$(jq -c '.jobs[0] // empty' <<<"$answer")
    [[ $job ]] && execute
  else
    [[ $code == 404 ]] && session='' # it is over: start without one
    [[ $draining ]] || sleep 0.2
  fi
done
[[ $session ]] && call heartbeat "{\"session\": \"$session\", \"goodbye\": true}"
exit 0
