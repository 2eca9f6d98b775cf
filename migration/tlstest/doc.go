// Package tlstest makes certificate authorities and certificates for tests, good ones and bad ones. They are
// written as PEM files, since that is what people give to Fineline. Keys are ECDSA P-256: made in no time.
package tlstest
