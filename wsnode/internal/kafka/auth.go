package kafka

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/IBM/sarama"
)

// Secure puts TLS (nil for none) and SASL settings into sc.
func Secure(sc *sarama.Config, tls *tls.Config, auth SASL) error {
	if tls != nil {
		sc.Net.TLS.Enable = true
		sc.Net.TLS.Config = tls
	}
	if auth.Mechanism == "" {
		return nil
	}
	sc.Net.SASL.Enable = true
	sc.Net.SASL.User = auth.User
	sc.Net.SASL.Password = auth.Password
	sc.Net.SASL.Mechanism = sarama.SASLMechanism(auth.Mechanism)
	switch auth.Mechanism {
	case sarama.SASLTypePlaintext:
	case sarama.SASLTypeSCRAMSHA256:
		sc.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scram{hash: sha256.New} }
	case sarama.SASLTypeSCRAMSHA512:
		sc.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scram{hash: sha512.New} }
	default:
		return fmt.Errorf("sasl mechanism %q is not known: use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", auth.Mechanism)
	}
	return nil
}

// scram is the client's side of SCRAM (RFC 5802) without channel binding.
type scram struct {
	hash func() hash.Hash

	user, password string
	nonce          string
	first          string // client-first-message-bare
	signature      []byte // what the server must prove
	step           int
}

// Begin implements sarama.SCRAMClient.
func (s *scram) Begin(user, password, _ string) error {
	raw := make([]byte, 24)
	if _, err := rand.Read(raw); err != nil {
		return fmt.Errorf("make nonce: %w", err)
	}
	s.user, s.password, s.nonce = user, password, base64.RawStdEncoding.EncodeToString(raw)
	s.step = 0
	return nil
}

// Step implements sarama.SCRAMClient.
func (s *scram) Step(challenge string) (string, error) {
	s.step++
	switch s.step {
	case 1:
		name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s.user)
		s.first = "n=" + name + ",r=" + s.nonce
		return "n,," + s.first, nil
	case 2:
		return s.prove(challenge)
	case 3:
		return "", s.verify(challenge)
	default:
		return "", errors.New("scram exchange is over")
	}
}

// Done implements sarama.SCRAMClient.
func (s *scram) Done() bool { return s.step >= 3 }

func (s *scram) prove(challenge string) (string, error) {
	attrs := scramAttributes(challenge)
	nonce := attrs["r"]
	if !strings.HasPrefix(nonce, s.nonce) || len(nonce) == len(s.nonce) {
		return "", errors.New("scram server did not extend the nonce")
	}
	salt, err := base64.StdEncoding.DecodeString(attrs["s"])
	if err != nil {
		return "", fmt.Errorf("decode scram salt: %w", err)
	}
	rounds, err := strconv.Atoi(attrs["i"])
	if err != nil || rounds < 1 || rounds > 10_000_000 {
		return "", fmt.Errorf("scram iteration count %q is not usable", attrs["i"])
	}
	salted, err := pbkdf2.Key(s.hash, s.password, salt, rounds, s.hash().Size())
	if err != nil {
		return "", fmt.Errorf("derive scram key: %w", err)
	}
	client := s.mac(salted, "Client Key")
	digest := s.hash()
	digest.Write(client)
	final := "c=biws,r=" + nonce
	message := s.first + "," + challenge + "," + final
	proof := s.mac(digest.Sum(nil), message)
	subtle.XORBytes(proof, proof, client)
	s.signature = s.mac(s.mac(salted, "Server Key"), message)
	return final + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

func (s *scram) verify(challenge string) error {
	attrs := scramAttributes(challenge)
	if e, ok := attrs["e"]; ok {
		return fmt.Errorf("scram server refused: %s", e)
	}
	got, err := base64.StdEncoding.DecodeString(attrs["v"])
	if err != nil || !hmac.Equal(got, s.signature) {
		return errors.New("scram server could not prove that it knows the password")
	}
	return nil
}

func (s *scram) mac(key []byte, message string) []byte {
	m := hmac.New(s.hash, key)
	m.Write([]byte(message))
	return m.Sum(nil)
}

func scramAttributes(message string) map[string]string {
	attrs := make(map[string]string)
	for part := range strings.SplitSeq(message, ",") {
		if name, value, ok := strings.Cut(part, "="); ok {
			attrs[name] = value
		}
	}
	return attrs
}
