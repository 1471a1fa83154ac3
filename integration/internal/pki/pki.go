// Package pki makes certificate authorities and certificates for tests, in files that live as long as a test.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority vouches for certificates.
type Authority struct {
	File string // its own certificate

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Pair is a certificate and its key, in files.
type Pair struct{ Cert, Key string }

// New makes an authority whose files, and those of what it vouches for, lie in dir and begin with name.
func New(dir, name string) (*Authority, error) {
	a := &Authority{dir: dir, File: filepath.Join(dir, name+".pem")}
	tmpl := template(name, time.Hour)
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	a.key = key
	return a, write(a.File, "CERTIFICATE", der)
}

// Issue makes a certificate for this machine's loopback addresses that is good for both ends of a connection, and
// ends so much from now; negative: it has ended.
func (a *Authority) Issue(name string, life time.Duration) (Pair, error) {
	p := Pair{Cert: filepath.Join(a.dir, name+".pem"), Key: filepath.Join(a.dir, name+"-key.pem")}
	return p, a.Replace(p, name, life)
}

// Replace puts a new certificate and key into the files of an earlier one.
func (a *Authority) Replace(p Pair, name string, life time.Duration) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make certificate %s: %w", name, err)
	}
	tmpl := template(name, life)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	tmpl.DNSNames, tmpl.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("make certificate %s: %w", name, err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make certificate %s: %w", name, err)
	}
	return errors.Join(write(p.Cert, "CERTIFICATE", der), write(p.Key, "PRIVATE KEY", raw))
}

// Bundle writes key and certificate into one file, as Kafka wants them, and returns its name.
func (p Pair) Bundle() (string, error) {
	file := p.Cert + ".bundle"
	key, err := os.ReadFile(p.Key)
	if err != nil {
		return "", fmt.Errorf("bundle certificate: %w", err)
	}
	cert, err := os.ReadFile(p.Cert)
	if err != nil {
		return "", fmt.Errorf("bundle certificate: %w", err)
	}
	if err := os.WriteFile(file, append(key, cert...), 0o600); err != nil {
		return "", fmt.Errorf("bundle certificate: %w", err)
	}
	return file, nil
}

// Pool holds the authority's certificate, for clients of the test's own.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func template(name string, life time.Duration) *x509.Certificate {
	now := time.Now()
	from := now.Add(-time.Minute)
	if life < 0 {
		from = now.Add(life - time.Hour)
	}
	// Each its own number: programs tell certificates of one authority apart by it.
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		serial = big.NewInt(now.UnixNano())
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: now.Add(life),
	}
}

func write(file, kind string, der []byte) error {
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	return nil
}
