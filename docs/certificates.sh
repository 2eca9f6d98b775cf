#!/bin/sh
# Makes certificates to try TLS with: certificates.sh HOST|ADDRESS ...
# A new CA (ca.pem, ca.key) in this folder, and NAME.pem with NAME.key for each name that is given. For 30 days.
# For real use, keep ca.key away from the hosts, or use the CA that you have.
set -eu
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
umask 077

# shellcheck disable=SC2086 # the words of $key are arguments
openssl req -x509 $key -days 30 -subj "/CN=migration CA" -keyout ca.key -out ca.pem
for name; do
	case $name in
	*:*) kind=IP ;;
	*[!0-9.]*) kind=DNS ;;
	*) kind=IP ;;
	esac
	# Each host is a server when a guest arrives and a client when one leaves.
	printf 'subjectAltName=%s:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$kind" "$name" >"$name.ext"
	# shellcheck disable=SC2086
	openssl req $key -subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
	openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile "$name.ext" -out "$name.pem"
	rm "$name.csr" "$name.ext"
done
