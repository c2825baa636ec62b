"""From the SFT policy to an aligned one, cycle by cycle, by the method that params choose."""
