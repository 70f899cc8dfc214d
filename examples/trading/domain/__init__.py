"""What trading is about: it knows pabal's domain package alone, no bus and no database."""
