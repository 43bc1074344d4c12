#!/bin/sh
# TLS 证书 · TLS for Kafka: a CA of its own, a certificate for the brokers, one for the administrator.
#
#   sh deploy/kafka/certificates.sh DIR HOST...      HOST: each name or IP by which clients call a broker
#
# In DIR: ca.pem goes to every process (ORDERSTREAM_KAFKA_CA), broker.pem to the brokers, admin.pem to the administrator
# (ORDERSTREAM_KAFKA_CERT). Whoever has ca.key can make administrators: keep it off these machines. Run again to renew:
# the CA stays, so brokers can be restarted one by one.
set -eu
umask 077
[ $# -ge 2 ] || { echo '用法 · usage: certificates.sh DIR HOST...' >&2; exit 2; }
command -v openssl >/dev/null || { echo '缺少 openssl：apt-get install openssl · openssl is missing: apt-get install openssl' >&2; exit 2; }
mkdir -p "$1"
cd "$1"
shift

names=
for host; do
  case $host in
    *:* | *[!0-9.]*) kind=DNS; case $host in *:*) kind=IP;; esac;;
    *) kind=IP;;
  esac
  names="${names:+$names,}$kind:$host"
done

key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256; }

if [ ! -e ca.key ]; then
  key > ca.key
  openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj '/CN=orderstream Kafka CA' -out ca.pem \
    -addext 'basicConstraints=critical,CA:true,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign'
fi

# sign NAME EXTENSIONS: NAME.pem holds the key and its certificate; the name is who Kafka takes its bearer for
sign() {
  key > "$1.key"
  printf '%s\n' 'basicConstraints=critical,CA:false' 'keyUsage=critical,digitalSignature' "$2" > "$1.ext"
  openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -sha256 -days 825 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
  cat "$1.key" "$1.crt" > "$1.pem.new"
  mv "$1.pem.new" "$1.pem"
  rm "$1.key" "$1.csr" "$1.crt" "$1.ext"
}
sign broker "$(printf 'extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=%s' "$names")"
sign admin 'extendedKeyUsage=clientAuth'
chmod 644 ca.pem
