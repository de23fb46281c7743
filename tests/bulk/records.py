"""Records of tokens, as files have them."""


def token(user="u1", gateway="STRIPE", customer="cus_1", **rest):
    return {"userId": user, "gateway": gateway, "gatewayCustomerId": customer, **rest}


def many(count):
    return [token(f"u{number}", customer=f"cus_{number}") for number in range(count)]
