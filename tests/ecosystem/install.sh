#!/usr/bin/env bash
# Installs what the tests need besides Python packages: Chromium, Node, and Node's clients for tests/ecosystem, HAProxy
# for the rollout lab's, Prometheus for those of the dashboards. Debian and Ubuntu; as root where something is missing.
# What is there already is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/node"

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
[[ -x /usr/sbin/haproxy ]] || command -v haproxy >/dev/null || missing+=(haproxy)
prometheus=there
command -v prometheus >/dev/null && command -v promtool >/dev/null || prometheus=missing

if ((${#missing[@]})) || [[ $prometheus == missing ]]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
fi
if ((${#missing[@]})); then
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
# Only its two programs, which need nothing but libc: the package would start a service.
if [[ $prometheus == missing ]]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb --extract prometheus_*.deb .)
  install -m 755 "$folder/usr/bin/prometheus" "$folder/usr/bin/promtool" /usr/local/bin
fi

npm ci --no-audit --no-fund --loglevel=error
