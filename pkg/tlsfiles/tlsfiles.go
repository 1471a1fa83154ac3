// Package tlsfiles makes TLS configurations from the files that flags name.
//
// Certificates that this program shows, and the authorities by which it knows clients, are read again when their
// files change: the next handshake has them. Connections that are open are not touched. The authorities by which it
// knows servers are read once, because crypto/tls offers no safe way to change them.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"
)

// Client is for a connection that this program opens; nil when on is false. ca vouches for the other end (empty: the
// system's certificates), cert and key are shown to it (empty: none). log, which may be nil, hears of changed files.
func Client(log *zap.Logger, on bool, ca, cert, key string) (*tls.Config, error) {
	if !on {
		if ca != "" || cert != "" || key != "" {
			return nil, errors.New("certificates are given, but TLS is off")
		}
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pool, err := certPool(ca)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = pool
	}
	if cert != "" || key != "" {
		k, err := open(log, cert, key, "")
		if err != nil {
			return nil, err
		}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return k.current().cert, nil
		}
	}
	return conf, nil
}

// Server is for connections that this program accepts; nil without a certificate. With clientCA the other end must
// show a certificate that it vouches for. log, which may be nil, hears of changed files.
func Server(log *zap.Logger, cert, key, clientCA string) (*tls.Config, error) {
	if cert == "" && key == "" {
		if clientCA != "" {
			return nil, errors.New("certificates of clients can only be asked for with a certificate of our own")
		}
		return nil, nil
	}
	k, err := open(log, cert, key, clientCA)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return k.current().cert, nil
		},
	}
	if clientCA == "" {
		return conf, nil
	}
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	// A ticket would vouch for a client whose authority is no longer believed.
	conf.SessionTicketsDisabled = true
	base := conf.Clone()
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.ClientCAs = k.current().pool
		return c, nil
	}
	return conf, nil
}

func certPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}
