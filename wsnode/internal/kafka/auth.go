package kafka

import (
	"crypto/tls"
	"fmt"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
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
		sc.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &exchange{hash: scram.SHA256} }
	case sarama.SASLTypeSCRAMSHA512:
		sc.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &exchange{hash: scram.SHA512} }
	default:
		return fmt.Errorf("sasl mechanism %q is not known: use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", auth.Mechanism)
	}
	return nil
}

// exchange is the client's side of one SCRAM exchange as sarama wants it.
type exchange struct {
	*scram.ClientConversation
	hash scram.HashGeneratorFcn
}

// Begin implements sarama.SCRAMClient.
func (e *exchange) Begin(user, password, authzID string) error {
	c, err := e.hash.NewClient(user, password, authzID)
	if err != nil {
		return fmt.Errorf("prepare scram: %w", err)
	}
	e.ClientConversation = c.NewConversation()
	return nil
}
