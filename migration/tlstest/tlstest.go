package tlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority signs certificates.
type Authority struct {
	File string // its certificate
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Leaf is a certificate with its key, as files.
type Leaf struct{ Cert, Key string }

// Template says what is special about a certificate. The zero value is one for localhost and the loopback
// addresses, for servers and clients, valid from an hour ago for a day.
type Template struct {
	Hosts   []string // names and addresses in place of loopback's
	Expired bool
	Usages  []x509.ExtKeyUsage // in place of both
}

// NewAuthority writes NAME.pem to dir and returns who can sign with it.
func NewAuthority(dir, name string) (*Authority, error) {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := &Authority{dir: dir, File: filepath.Join(dir, name+".pem")}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := sign(template, template, a.key, a.key, time.Now().Add(24*time.Hour))
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, writePEM(a.File, "CERTIFICATE", der)
}

// Issue writes NAME.pem and NAME.key to the authority's dir.
func (a *Authority) Issue(name string, t Template) (Leaf, error) {
	if t.Hosts == nil {
		t.Hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	if t.Usages == nil {
		t.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: t.Usages,
	}
	for _, host := range t.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	end := time.Now().Add(24 * time.Hour)
	if t.Expired {
		end = time.Now().Add(-time.Minute)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Leaf{}, err
	}
	der, err := sign(template, a.cert, key, a.key, end)
	if err != nil {
		return Leaf{}, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Leaf{}, err
	}
	leaf := Leaf{Cert: filepath.Join(a.dir, name+".pem"), Key: filepath.Join(a.dir, name+".key")}
	return leaf, errors.Join(writePEM(leaf.Cert, "CERTIFICATE", der), writePEM(leaf.Key, "PRIVATE KEY", secret))
}

// sign returns the DER form of what the template says.
func sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey, end time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, time.Now().Add(-time.Hour), end
	return x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
